"""Files of a Space: all that the page needs, nothing else, with its own pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo.serving import zero_gpu
from tools import build_space
from tools.build_space import LEFT_OUT, ROOT, SPACE_PINS, assemble, build_requirements, main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "space"
    assert assemble(out) == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return out


def test_the_weights_and_the_examples_come_along(made: Path) -> None:
    for folder in ("weights", "demo/examples"):
        kept = sorted(p.name for p in (ROOT / folder).iterdir() if p.name != "__pycache__")
        assert sorted(p.name for p in (made / folder).iterdir()) == kept
    assert (made / "README.md").read_text(encoding="utf-8").startswith("---\ntitle: MedFedPure")
    size = sum(p.stat().st_size for p in made.rglob("*") if p.is_file())
    assert size < 60e6


def test_nothing_that_trains_tests_or_measures_comes_along(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == {*build_space.PARTS, "requirements.txt"}
    for name in LEFT_OUT:
        assert not list(made.rglob(name))
    for path in made.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"train", "bench", "tests"} & {name.split(".")[0] for name in names}, path


@pytest.mark.slow
def test_the_page_s_modules_import_there(made: Path) -> None:
    code = "import app, core.__main__, demo.page, demo.report.pdf"
    clean = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=made, env=clean, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_its_pins_are_the_project_s_but_for_torch(made: Path) -> None:
    pinned = dict(line.split("==") for line in lines((ROOT / "requirements.txt").read_text()))
    own = dict(line.split("==") for line in lines((made / "requirements.txt").read_text()))
    assert {k: pinned[k] for k in own if k not in SPACE_PINS} == {
        k: v for k, v in own.items() if k not in SPACE_PINS
    }
    assert {k: own[k] for k in SPACE_PINS} == SPACE_PINS
    assert set(pinned) - set(own) == {"gradio"}  # the Space installs the sdk_version of README.md
    front = (made / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^sdk_version: {re.escape(pinned['gradio'])}$", front, re.M)
    assert "numpy==1\n" in build_requirements("# a comment\n\nnumpy==1\ngradio==2\n")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_folder_of_someone_else_s_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main([str(tmp_path)]) == 1
    assert "no Space: name another folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_it_is_made_anew(made: Path) -> None:
    (made / "stale.py").write_text("")
    assemble(made)
    assert not (made / "stale.py").exists()


def test_a_space_with_a_shared_gpu_finds_a_function_to_give_it_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert zero_gpu.declare() is None  # the package is absent here
    given = []
    fake = SimpleNamespace(GPU=lambda fn: given.append(fn) or fn, __spec__=object())
    monkeypatch.setitem(sys.modules, "spaces", fake)
    assert zero_gpu.declare() is given[0]


def test_a_public_page_says_so_above_everything() -> None:
    from demo.page import _render_header

    assert "This page is public: upload no patient data." in _render_header("", True)
    own = _render_header("", False)
    assert "This page is public" not in own and "On a public server upload no patient data" in own
