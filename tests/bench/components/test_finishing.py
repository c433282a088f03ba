"""Finished behind a change: the same steps for each, a classifier of its own, resumed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from bench.components import finishing
from bench.components.finishing import ADAPTIVE, CLEAN, NOTHING, PGD, Kind
from bench.parallel import ParallelBatches
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset


def test_every_kind_can_change_nothing_and_reads_its_strengths(
    pipeline: MedFedPure, test_fold: ScanDataset
) -> None:
    x, _, seeds = test_fold.thin(2).batches(2, pipeline.device)[0]
    kinds = {kind.name: kind for kind in finishing.list_kinds(pipeline)}
    assert list(kinds) == [NOTHING, "purifier", "gaussian", "median"]
    for kind in kinds.values():
        assert torch.equal(kind.strengths[0](x, seeds), x)
        others = [change(x, seeds) for s, change in kind.strengths.items() if s]
        assert all(not torch.equal(other, x) and other.shape == x.shape for other in others)
    drawn = {id(kinds["median"].draw(torch.Generator().manual_seed(i))) for i in range(40)}
    assert len(drawn) == len(kinds["median"].strengths)


def test_a_finished_classifier_is_another_and_resumes(
    pipeline: MedFedPure, test_fold: ScanDataset, tmp_path: Path
) -> None:
    before = {n: t.clone() for n, t in pipeline.plain.state_dict().items()}
    kind = finishing.list_kinds(pipeline)[2]
    few = test_fold.thin(8)
    made = finishing.finish(pipeline, kind, few, 1, tmp_path)
    own = pipeline.plain.state_dict()
    assert all(torch.equal(own[n], t) for n, t in before.items())  # the system's own stays
    assert any(not torch.equal(own[n], t) for n, t in made.state_dict().items())
    assert not made.training and float(made.temperature) == 1
    again = finishing.finish(pipeline, kind, few, 1, tmp_path)  # nothing is left to train
    for name, tensor in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_the_best_strength_is_chosen_on_validation_scans(
    pipeline: MedFedPure, test_fold: ScanDataset
) -> None:
    """A change that answers for the classifier wins; a change that blackens every scan loses."""
    odds = lambda x: (x.mean((1, 2, 3)) > 0.5).long()  # noqa: E731

    class Reader(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(odds(x), 2).float() + 0 * x.mean((1, 2, 3))[:, None]

    answers = dict(zip(test_fold.seeds, test_fold.labels.tolist(), strict=True))
    told = lambda x, seeds: torch.stack(  # noqa: E731
        [answers[s] + 0 * z for z, s in zip(x, seeds, strict=True)]
    )
    kind = Kind("told", {0: lambda x, _: torch.zeros_like(x), 1: told})
    lanes = ParallelBatches(pipeline.device, 4)
    row = finishing.measure(
        Reader(), kind, test_fold.thin(6), test_fold.thin(8), lanes, Namespace(adaptive=4)
    )
    assert row["strength"] == 1 and row["validation"]["1"] == 1.0 > row["validation"]["0"]
    assert row["figures"][CLEAN]["accuracy"] == row["figures"][PGD]["accuracy"] == 1.0
    assert row["figures"][ADAPTIVE]["n"] == 4


def test_pairs_count_who_alone_is_right() -> None:
    def row(right: str) -> dict:
        return {"figures": {CLEAN: {"right": right}}}

    rows = {"purifier": row("1110"), "gaussian": row("1001"), "paired": {}}
    assert finishing.compare(rows) == {
        "gaussian": {CLEAN: {"only_purifier": 2, "only_it": 1, "p": pytest.approx(1.0)}}
    }
