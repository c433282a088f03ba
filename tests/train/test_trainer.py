"""Training loop: learns, stops early, and resumes after a kill without a difference."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import checkpointing, trainer
from train.data.dataset import Sample, ScanDataset, batches, compute_weights
from train.trainer import FitConfig, fit

CPU = torch.device("cpu")
CONFIG = FitConfig(epochs=4, batch_size=8, lr=1e-2, ema=0.5)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> ScanDataset:
    """Draw bright and dark 8 x 8 pictures."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    scans = rng.integers(0, 120, (40, 8, 8)) + 100 * labels[:, None, None]
    return ScanDataset(scans.astype(np.uint8), torch.from_numpy(labels), ["a"] * 40, range(40))


class Toy(nn.Module):
    """Small network with all that a state stores: convolution, running statistics, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(72, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
    x, y = sample[:2]
    return F.cross_entropy(model(x + 0.1 * torch.randn(x.shape, generator=generator)), y)


def accuracy(data: ScanDataset):
    def validate(model: nn.Module) -> dict[str, float]:
        x, y = data.batch(range(len(data)), CPU)
        with torch.no_grad():
            right = (model(x).argmax(1) == y).double().mean()
            return {"nll": float(F.cross_entropy(model(x), y)), "score": float(right)}

    return validate


def ignore(line: str) -> None:
    pass


def run(data: ScanDataset, config: FitConfig = CONFIG, model: nn.Module | None = None, **more):
    model = model or Toy()
    more.setdefault("validate", accuracy(data))
    history = fit(model, data, more.pop("loss", loss), config, report=ignore, device=CPU, **more)
    return model, history


def are_equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def kill_at(last: int):
    def progress(step: int, total: int, loss: float) -> None:
        if step == last:
            raise KeyboardInterrupt

    return progress


# --- learning ------------------------------------------------------------------------------------


def test_a_toy_problem_is_learned_and_the_model_left_in_eval_mode(data):
    model, history = run(data)
    assert history[-1]["score"] == 1.0
    assert history[-1]["loss"] < history[0]["loss"]
    assert [h["epoch"] for h in history] == [1, 2, 3, 4]
    assert not model.training


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(data):
    first, _ = run(data)
    model = Toy()
    torch.rand(100)
    assert are_equal(first, run(data, model=model)[0])
    assert not are_equal(first, run(data, FitConfig(**{**vars(CONFIG), "seed": 1}))[0])


def test_no_scans_are_refused(data):
    empty = data.pick([])
    with pytest.raises(ValueError, match="no scans"):
        run(empty)


def test_a_loss_that_is_no_number_stops_before_it_is_saved(data, tmp_path):
    path = tmp_path / "toy.state"

    def broken(model, sample, generator):
        return loss(model, sample, generator) * float("nan")

    with pytest.raises(FloatingPointError, match="lower lr"):
        run(data, loss=broken, checkpoint=path)
    assert not path.exists()


def test_no_epochs_leave_the_weights_alone(data):
    model, history = run(data, FitConfig(epochs=0))
    assert history == [] and are_equal(model, Toy())


def test_the_weights_are_those_of_the_best_epoch(data):
    seen: list[dict[str, Tensor]] = []

    def validate(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"score": [0.1, 0.9, 0.5, 0.2][len(seen) - 1]}

    model, _ = run(data, validate=validate)
    assert all(torch.equal(v, seen[1][k]) for k, v in model.state_dict().items())


def test_early_stop_after_patience_epochs_without_a_better_one(data):
    scores = itertools.chain([0.5, 0.9], itertools.repeat(0.8))
    config = FitConfig(epochs=20, batch_size=8, patience=3)
    _, history = run(data, config, validate=lambda model: {"score": next(scores)})
    assert len(history) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"samples": -1},
        {"patience": -1},
        {"lr": 0},
        {"ema": 1},
        {"optimizer": "sgd"},
    ],
)
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitConfig(**wrong)


# --- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 5, 7, 13, 20])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(data, tmp_path, last):
    resume_and_compare(data, CONFIG, tmp_path / "toy.state", last)


def test_the_same_holds_for_muon(data, tmp_path):
    config = replace(CONFIG, optimizer="muon")
    resume_and_compare(data, config, tmp_path / "toy.state", last=7)
    assert not are_equal(run(data, config)[0], run(data)[0])  # it is another optimiser


def resume_and_compare(data: ScanDataset, config: FitConfig, path: Path, last: int) -> None:
    whole, history = run(data, config)
    with pytest.raises(KeyboardInterrupt):
        run(data, config, checkpoint=path, progress=kill_at(last))
    resumed, again = run(data, config, checkpoint=path)
    assert again == history
    assert are_equal(resumed, whole)


def test_the_same_holds_for_a_state_saved_within_an_epoch(data, tmp_path, monkeypatch):
    whole, history = run(data)
    path = tmp_path / "toy.state"
    clock = itertools.count(0, 200)  # each look at the clock finds two minutes gone
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt):
        run(data, checkpoint=path, progress=kill_at(8))
    steps: list[int] = []
    resumed, again = run(data, checkpoint=path, progress=lambda step, *_: steps.append(step))
    assert steps[0] == 8  # seven were saved: the eighth is done again
    assert again == history
    assert are_equal(resumed, whole)


def test_a_finished_run_is_not_trained_further(data, tmp_path):
    path = tmp_path / "toy.state"
    config = FitConfig(epochs=20, batch_size=8, patience=2)
    scores = itertools.chain([0.9], itertools.repeat(0.1))
    whole, history = run(
        data, config, checkpoint=path, validate=lambda model: {"score": next(scores)}
    )

    def fail(*_):
        raise AssertionError("trained on")

    again, same_history = run(data, config, checkpoint=path, progress=fail)
    assert are_equal(again, whole) and same_history == history and len(history) == 3


def test_a_checkpoint_of_other_settings_or_another_shape_is_refused(data, tmp_path):
    path = tmp_path / "toy.state"
    run(data, checkpoint=path)
    written = path.read_bytes()
    with pytest.raises(ValueError, match=r"other settings: remove it"):
        run(data, FitConfig(**{**vars(CONFIG), "lr": 2e-2}), checkpoint=path)
    fewer = data.thin(30, truncate=True)
    with pytest.raises(ValueError, match="other settings"):
        run(fewer, checkpoint=path)
    with pytest.raises(ValueError, match="other settings"):
        run(data, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), checkpoint=path)
    assert path.read_bytes() == written


def test_a_damaged_checkpoint_is_reported(data, tmp_path):
    path = tmp_path / "toy.state"
    run(data, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged: remove it"):
        run(data, checkpoint=path)


def test_a_full_disk_keeps_the_last_checkpoint_and_training_resumes_from_it(
    data, tmp_path, monkeypatch
):
    whole, _ = run(data)
    path = tmp_path / "toy.state"
    save_file = checkpointing.save_file
    calls = itertools.count(1)

    def full(tensors, partial: Path, metadata):
        if next(calls) == 3:
            partial.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save_file(tensors, partial, metadata)

    monkeypatch.setattr(checkpointing, "save_file", full)
    with pytest.raises(OSError, match=r"toy\.state cannot be written.*No space left"):
        run(data, checkpoint=path)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.state"]
    steps: list[int] = []
    resumed, _ = run(data, checkpoint=path, progress=lambda step, *_: steps.append(step))
    assert steps[0] == 11  # two epochs of five steps were kept
    assert are_equal(resumed, whole)


# --- batches and weights -------------------------------------------------------------------------


def test_a_batch_is_float_in_the_unit_range_with_a_channel(data):
    x, y = data.batch(torch.tensor([3, 3, 0]), CPU)
    assert x.shape == (3, 1, 8, 8) and x.dtype == torch.float32
    assert torch.equal(x[0, 0], torch.from_numpy(data.scans[3]) / 255)
    assert y.tolist() == [1, 1, 0]


def test_colour_pictures_keep_their_channels():
    colour = ScanDataset(np.zeros((2, 3, 4, 4), np.uint8), torch.tensor([0, 1]), ["a", "b"], [0, 1])
    assert colour.batch([0, 1], CPU)[0].shape == (2, 3, 4, 4)


@pytest.mark.parametrize(("n", "size"), [(10, 4), (8, 4), (3, 4), (0, 4)])
def test_ragged_batches_cover_every_position_once(n, size):
    runs = list(batches(n, size))
    assert [i for rows in runs for i in rows] == list(range(n))
    assert all(len(rows) == size for rows in runs[:-1])


def test_cells_share_equally_and_near_duplicates_count_by_the_root_of_their_number():
    cells = ["a"] * 6 + ["b"] * 2
    weights = compute_weights(cells, [0, 0, 0, 0, 1, 2, 3, 4])
    assert weights[:6].sum() == pytest.approx(1) and weights[6:].sum() == pytest.approx(1)
    assert weights[:4].sum() / weights[4] == pytest.approx(2)  # four copies weigh as two scans
    assert weights[6] == weights[7]


def test_sources_weigh_the_same_and_one_of_a_single_class_half_of_that():
    """By source and label: br35h 2 and 4 scans, tcga-lgg 1 and 1, ixi 3 of a healthy patient."""
    cells = ["br35h/0"] * 2 + ["br35h/1"] * 4 + ["tcga-lgg/0", "tcga-lgg/1"] + ["ixi/0"] * 3
    weights = compute_weights(cells, [0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 7])
    share = dict.fromkeys(("br35h", "tcga-lgg", "ixi"), 0.0)
    for cell, weight in zip(cells, weights.tolist(), strict=True):
        share[cell.split("/")[0]] += weight / weights.sum().item()
    assert share == pytest.approx({"br35h": 2 / 5, "tcga-lgg": 2 / 5, "ixi": 1 / 5})
    assert weights.tolist() == pytest.approx([1 / 2] * 2 + [1 / 4] * 4 + [1, 1] + [1 / 3] * 3)


def test_a_patient_s_slices_weigh_by_the_root_of_their_number():
    """Of one cell: a patient of nine slices, one of four, one of one: 3 to 2 to 1."""
    groups = [0] * 9 + [1] * 4 + [2]
    weights = compute_weights(["tcga-lgg/1"] * 14, groups)
    assert weights[:9].tolist() == pytest.approx([1 / 18] * 9)
    assert weights[9:13].tolist() == pytest.approx([1 / 12] * 4)
    assert weights[13].item() == pytest.approx(1 / 6)


def test_copies_in_another_cell_do_not_count():
    weights = compute_weights(["a", "a", "b", "b"], [0, 1, 0, 0])
    assert weights.tolist() == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("limit", [1, 7, 40, 100])
def test_evenly_spaced_scans_get_weights_of_their_own(limit):
    """The remaining scans of each cell share its weight equally."""
    scans = np.arange(40, dtype=np.uint8).repeat(64).reshape(40, 8, 8)
    labels, groups = [i // 30 for i in range(40)], [i // 2 for i in range(40)]
    cells = [f"a/{label}" for label in labels]
    some = ScanDataset(scans, torch.tensor(labels), cells, groups).thin(limit, truncate=True)
    assert len(some) == min(limit, 40) == len(some.weights)
    assert np.shares_memory(some.scans, scans) == (limit >= 40)  # all scans are held once
    assert some.scans[:, 0, 0].tolist() == sorted({int(v) for v in some.scans[:, 0, 0]})
    assert some.labels.tolist() == [labels[v] for v in some.scans[:, 0, 0]]
    assert list(some.cells) == [f"a/{label}" for label in some.labels.tolist()]
    for cell in set(some.cells):
        inside = torch.tensor([c == cell for c in some.cells])
        assert some.weights[inside].sum() == pytest.approx(1)
