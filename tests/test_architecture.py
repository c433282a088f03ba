"""Laws of the architecture: import direction, sizes of files and folders, words, dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"core", "train", "bench", "demo", "tools", "app", "tests"}
MAY_IMPORT = {
    "core": {"core"},
    "train": {"core", "train"},
    "bench": {"core", "train", "bench"},
    "demo": {"core", "demo"},
    "app.py": {"core", "demo"},
    "tools": {"core", "train", "bench", "demo", "tools"},
}
# The rule is one idea a file; the number only catches files that have grown past one idea
MAX_LINES = 400
MAX_FILES = {"core": 24}  # Python files in one folder; 16 elsewhere: what a reader can take in
QUESTIONS = re.compile(r"(What|How|Whether|Which|Where|Who)\b")
LEAN = ("torch", "torchvision", "timm", "numpy", "PIL", "safetensors")
NEVER = ("pickle", "marshal", "shelve", "dill", "joblib")  # files hold numbers, not programs


def sources(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the absolute names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield node.module
            else:
                yield path.relative_to(ROOT).parts[0]  # relative: stays in its own package


def present(places: list[str]) -> list[Path]:
    return [p for place in places if (ROOT / place).exists() for p in sources(place)]


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_run_one_way(place):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in present([place])
        for name in imports_of(path)
        if name.split(".")[0] in OURS - MAY_IMPORT[place]
    ]
    assert wrong == []


def test_nothing_is_pickled():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in present(list(MAY_IMPORT))
        for name in imports_of(path)
        if name.split(".")[0] in NEVER
    ]
    assert wrong == []


def test_files_are_short():
    lengths = {p.relative_to(ROOT): len(p.read_text().splitlines()) for p in present([*MAY_IMPORT])}
    assert {str(p): n for p, n in lengths.items() if n > MAX_LINES} == {}


def folders() -> list[Path]:
    """Return every package of the project, and every folder of tests."""
    places = [*MAY_IMPORT, "tests"]
    return sorted({p.parent for p in present([p for p in places if not p.endswith(".py")])})


def test_folders_are_small():
    sizes = {str(f.relative_to(ROOT)): len(list(f.glob("*.py"))) for f in folders()}
    limits = {name: MAX_FILES.get(name.removeprefix("tests/"), 16) for name in sizes}
    assert {name: n for name, n in sizes.items() if n > limits[name]} == {}


def test_every_package_says_what_belongs_in_it():
    packages = [f for f in folders() if f.relative_to(ROOT).parts[0] != "tests"]
    assert [
        str(f.relative_to(ROOT))
        for f in packages
        if not ast.get_docstring(ast.parse((f / "__init__.py").read_text(encoding="utf-8")))
    ] == []


def test_docstrings_are_no_questions():
    """PEP 257: the first line is a verb for functions, a noun for modules and classes."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in present([*MAY_IMPORT, "tests"])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented)
        and (text := ast.get_docstring(node))
        and QUESTIONS.match(text)
    ]
    assert found == []


def test_no_import_runs_in_a_circle():
    """Modules import each other in one direction, imports inside functions and for types too."""
    modules = {module_name(p): p for p in present([*MAY_IMPORT])}
    imports = {
        name: {to for to in imported_modules(path, modules) if to != name}
        for name, path in modules.items()
    }
    while leaves := [name for name, to in imports.items() if not to & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert sorted(imports) == []


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the project's modules that a file imports, with the modules named from a package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (inner := f"{node.module}.{alias.name}") in modules:
                    yield inner
                elif node.module in modules:
                    yield node.module


def test_core_is_small():
    """Method, attacks, leakage and file formats; comments, docstrings and blanks apart."""
    formats = sum(code_lines(path) for path in sources("core/scan"))
    attacks = sum(code_lines(path) for path in sources("core/attacks"))
    leakage = sum(code_lines(path) for path in sources("core/leakage"))
    method = sum(code_lines(path) for path in sources("core")) - formats - attacks - leakage
    assert method <= 2360
    assert attacks <= 650
    assert leakage <= 150
    assert formats <= 1530


def code_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        1 for n, line in lines if n not in skipped and line.strip() and line.strip()[0] != "#"
    )


def test_core_and_train_import_with_the_lean_packages_alone():
    run = subprocess.run(
        [sys.executable, "tests/lean_imports.py", ",".join(LEAN)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    imported = run.stdout.split()
    assert "core.pipeline" in imported
    assert "train.data.split" in imported


def test_the_space_s_header_keeps_the_hub_s_limit():
    header = (ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]
    facts = dict(line.split(": ", 1) for line in header.strip().splitlines())
    assert len(facts["short_description"]) <= 60
    assert facts["app_file"] == "app.py" and facts["sdk"] == "gradio"
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"gradio=={facts['sdk_version']}" in pinned


def test_what_the_app_needs_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["medical"] + extras["app"]
    pinned = re.findall("^([a-z-]+)==", (ROOT / "requirements.txt").read_text("utf-8"), re.M)
    assert sorted(pinned) == sorted(re.split("[<>=]", one)[0] for one in needed)
