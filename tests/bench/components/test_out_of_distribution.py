from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.components.non_brain_phantoms import KINDS, phantom_of
from bench.components.out_of_distribution import measure_refusals
from core.novelty import LOG_ODDS_UNIT
from core.pipeline import MedFedPure


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_each_kind_of_phantom_is_drawn_anew(kind: int) -> None:
    drawn = [phantom_of(kind + len(KINDS) * i) for i in range(4)]
    assert all(p.shape == (224, 224) and p.dtype == np.uint8 and p.std() > 5 for p in drawn)
    assert len({p.tobytes() for p in drawn}) == 4
    assert (phantom_of(kind) == drawn[0]).all()


def test_the_share_is_that_above_the_limit(pipeline: MedFedPure) -> None:
    scans = np.stack([phantom_of(seed) for seed in range(5)])
    head = pipeline.novelty
    kept = {name: buffer.clone() for name, buffer in head.state_dict().items()}
    try:
        head.weight.fill_(1.0)
        with torch.no_grad():
            x = torch.from_numpy(scans)[:, None].float() / 255
            scores = head(pipeline.detector.mae.encode(x)).sort().values
        head.cut.copy_((scores[2] + scores[3]) / 2 / LOG_ODDS_UNIT)
        figures = measure_refusals(pipeline, scans, [0, 0, 1, 1, 2], batch_size=2)
    finally:
        head.load_state_dict(kept)
    assert (figures["k"], figures["n"], figures["refused"]) == (2, 5, 0.4)
    low, high = figures["interval"]
    assert low < 0.4 < high
