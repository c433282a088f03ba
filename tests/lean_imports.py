"""Command that imports core and train with only the named packages available.

A program for `test_architecture.py`: `lean_imports.py torch,numpy` prints each module it imported.
Packages that the named ones require are allowed too; any other is as good as not installed.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWNERS = metadata.packages_distributions()


def required_by(modules: Iterable[str]) -> set[str]:
    """Return the distributions of these modules with all their requirements."""
    todo = [canonicalize_name(owner) for module in modules for owner in OWNERS[module]]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # required elsewhere, on another platform
            continue
        wanted = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()]
        todo += [canonicalize_name(requirement.name) for requirement in wanted]
    return found


def main(lean: list[str]) -> None:
    allowed = required_by(lean)
    absent = {
        module
        for module, owners in OWNERS.items()
        if not any(canonicalize_name(owner) in allowed for owner in owners)
    } - {"core", "train"} | {"bench", "demo", "app"}

    class LeanFinder(PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, *args: Any, **kwargs: Any) -> ModuleSpec | None:
            if fullname.split(".")[0] in absent - sys.stdlib_module_names:
                return None
            return super().find_spec(fullname, *args, **kwargs)

    sys.meta_path = [LeanFinder if f is PathFinder else f for f in sys.meta_path]
    sys.meta_path = [f for f in sys.meta_path if "editable" not in str(f)]
    for name in [n for n in sys.modules if n.split(".")[0] in absent]:
        del sys.modules[name]
    for package in ("core", "train"):
        for module in pkgutil.walk_packages([package], f"{package}."):
            if not module.name.startswith("train.federated"):
                importlib.import_module(module.name)
                print(module.name)
    for probe in ("gradio", "matplotlib", "pytest", "demo"):
        if importlib.util.find_spec(probe) is not None:
            raise SystemExit(f"{probe} should have been out of reach")


if __name__ == "__main__":
    sys.path.insert(0, ".")
    main(sys.argv[1].split(","))
