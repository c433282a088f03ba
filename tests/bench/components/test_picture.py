"""The purified picture: known answers, GMSD by hand, the peer that removes as much."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from bench.components import picture
from bench.explanations.outlined import Outlined
from core.pipeline import MedFedPure
from tests.bench.components.test_lesions import square
from train.data.dataset import ScanDataset


@pytest.fixture
def outlined(test_fold: ScanDataset) -> Outlined:
    few = test_fold.thin(4)
    return Outlined(few, {row: square(90, 60) for row in range(len(few))})


def test_known_changes_keep_and_remove_what_they_should(
    pipeline: MedFedPure, outlined: Outlined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MIN_CONTRAST", 0.0)
    changes = {"same": lambda x, _: x, "half": lambda x, _: x / 2}
    row = picture.measure_pictures(pipeline, outlined, changes)
    assert row["n"] == len(row["units"]) == 4
    same, half = row["changes"]["same"], row["changes"]["half"]
    assert same["contrast_kept"] == [1.0] * 4 and same["removed"] == [0.0] * 4
    assert half["contrast_kept"] == pytest.approx([0.5] * 4, abs=1e-4)
    assert half["removed"] == pytest.approx([0.75] * 4, abs=1e-5)
    assert all(a < b for a, b in zip(same["gmsd"], half["gmsd"], strict=True))


def test_every_depth_and_strength_is_measured(pipeline: MedFedPure, outlined: Outlined) -> None:
    changes = picture.list_changes(pipeline)
    x, _, seeds = outlined.fold.batches(4, pipeline.device)[0]
    shown = picture.name_depth(pipeline.purifier.config.t_picture)
    assert shown in changes and "gaussian, 0.9" in changes and "median, 3" in changes
    depths = [t for t in changes if t.startswith("purifier")]
    assert len(depths) == len({float(changes[t](x, seeds).sum()) for t in depths})


def test_gmsd_is_that_of_its_definition() -> None:
    a, b = torch.rand(2, 1, 1, 32, 40, generator=torch.Generator().manual_seed(0)).unbind()
    kernel = np.array([[1.0, 0.0, -1.0]] * 3) / 3

    def edges(x: Tensor) -> np.ndarray:
        small = x[0, 0].numpy().astype(float).reshape(16, 2, 20, 2).mean((1, 3))
        parts = [ndimage.correlate(small, k, mode="constant") for k in (kernel, kernel.T)]
        return np.hypot(*parts)

    one, two = edges(a), edges(b)
    constant = 170 / 255**2
    similarity = (2 * one * two + constant) / (one**2 + two**2 + constant)
    assert float(picture.gmsd(a, b)) == pytest.approx(similarity.std(), abs=1e-5)
    assert float(picture.gmsd(a, a)) == pytest.approx(0, abs=1e-6)


def test_the_peer_is_the_sharpest_filter_that_removes_as_much() -> None:
    def figures(removed: float, *gmsd: float) -> dict[str, list[float]]:
        return {"removed": [removed] * 2, "gmsd": list(gmsd)}

    row = {
        "units": [0, 1],
        "changes": {
            "purifier, t = 35": figures(0.5, 0.1, 0.3),
            "gaussian, 1": figures(0.4, 0.01, 0.01),  # removes too little
            "gaussian, 2": figures(0.6, 0.2, 0.2),
            "gaussian, 3": figures(0.7, 0.02, 0.02),  # stronger than it must be
            "median, 9": figures(0.5, 0.4, 0.4),
        },
    }
    found = picture.compare_with_peer(row, "purifier, t = 35")
    assert found["peer"] == "gaussian, 2"
    assert found["sharper"]["k"] == 1 and found["sharper"]["n"] == 2
    for name in ("gaussian, 2", "gaussian, 3", "median, 9"):
        row["changes"][name]["removed"] = [0.1, 0.1]
    assert picture.compare_with_peer(row, "purifier, t = 35")["peer"] is None
    assert not math.isnan(found["sharper"]["interval"][0])
