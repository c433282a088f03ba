from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor

from core.scan import to_png, to_uint8
from demo import examples

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
    (example,) = examples.load(tmp_path)
    assert (example.levels == to_uint8(scan)).all() and not example.is_failure
    assert "Synthetic, drawn with a tumour" in example.sentence() and "0.61" in example.sentence()


@pytest.mark.parametrize("fact", ["read_right", "flips_undefended", "right_defended"])
def test_a_failure_is_labelled(tmp_path: Path, scan: Tensor, fact: str) -> None:
    write(tmp_path, scan, **{fact: False})
    (example,) = examples.load(tmp_path)
    assert example.is_failure and "Known failure" in example.sentence()


def test_a_broken_example_is_named(tmp_path: Path, scan: Tensor) -> None:
    write(tmp_path, scan, surprise=1)
    with pytest.raises(ValueError, match=r"one\.json.*surprise"):
        examples.load(tmp_path)
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(ValueError, match=r"one\.json"):
        examples.load(tmp_path)


def test_shipped_examples_are_synthetic_strangers() -> None:
    for example in examples.load():
        assert example.correlation < 0.9, example.name
