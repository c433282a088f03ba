from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import core
from core.pipeline import MedFedPure
from core.scan import from_uint8, to_png, to_uint8
from demo import examples
from demo.examples import Example
from demo.phantom import draw_phantom
from tools import make_examples
from tools.thumbnails import compute_orientations

FACTS = {
    "name": "T1, tumour",
    "tumour": True,
    "correlation": 0.61,
    "read_right": True,
    "flips_undefended": True,
    "right_defended": True,
}


def write(folder: Path, scan: Tensor, **changed: object) -> None:
    (folder / "one.png").write_bytes(to_png(scan))
    (folder / "one.json").write_text(json.dumps({**FACTS, **changed}))


def test_an_example_comes_with_its_facts(tmp_path: Path, scan: Tensor) -> None:
    write(tmp_path, scan)
    (example,) = examples.load_examples(tmp_path)
    assert (example.levels == to_uint8(scan)).all() and not example.is_failure
    assert "Synthetic, drawn with a tumour" in example.describe() and "0.61" in example.describe()


@pytest.mark.parametrize("fact", ["read_right", "flips_undefended", "right_defended"])
def test_a_failure_is_labelled(tmp_path: Path, scan: Tensor, fact: str) -> None:
    write(tmp_path, scan, **{fact: False})
    (example,) = examples.load_examples(tmp_path)
    assert example.is_failure and "Known failure" in example.describe()


def test_a_broken_example_is_named(tmp_path: Path, scan: Tensor) -> None:
    write(tmp_path, scan, surprise=1)
    with pytest.raises(ValueError, match=r"one\.json.*surprise"):
        examples.load_examples(tmp_path)
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(ValueError, match=r"one\.json"):
        examples.load_examples(tmp_path)


@pytest.mark.slow
def test_shipped_examples_are_synthetic_strangers_and_do_what_they_say() -> None:
    system, shipped = core.load(), examples.load_examples()
    assert {e.tumour for e in shipped} == {False, True} and any(e.is_failure for e in shipped)
    for example in shipped:
        assert example.correlation < 0.9, example.name
        scan = from_uint8(example.levels)
        again = make_examples.judge(system, scan, example.tumour, example.correlation)
        assert again.describe() == example.describe()


@pytest.mark.slow
def test_examples_are_made_judged_and_loaded(tmp_path: Path, system: MedFedPure) -> None:
    made = make_examples.make(system, lambda scan: 0.4, tmp_path, 2)
    loaded = examples.load_examples(tmp_path)
    assert len(made) == len(loaded) >= 1
    for old, new in zip(made, loaded, strict=True):
        assert (old.levels == new.levels).all() and old.describe() == new.describe()


def test_choosing_wants_strangers_and_keeps_one_failure() -> None:
    levels = np.zeros((1, 224, 224), dtype=np.uint8)

    def example(tumour: bool, right: bool, correlation: float = 0.5) -> Example:
        return Example("", levels, tumour, correlation, True, True, right)

    near_copy, fine, failed = example(True, True, 0.95), example(True, True), example(False, False)
    chosen = make_examples.choose([near_copy, *[fine] * 5, *[example(False, True)] * 5, failed])
    assert len(chosen) == 6 and near_copy not in chosen
    assert [e.is_failure for e in chosen] == [False] * 5 + [True]
    assert [e.tumour for e in chosen[:5]] == [True] * 3 + [False] * 2


def test_correlation_finds_mirrored_scans(scan: Tensor) -> None:
    correlation = make_examples.build_correlation(compute_orientations(to_uint8(scan)))
    assert correlation(scan) == pytest.approx(1, abs=1e-4)
    assert correlation(scan.flip(-1)) == pytest.approx(1, abs=1e-4)
    assert correlation(draw_phantom(9, False)) < 0.97
