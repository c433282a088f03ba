"""Shared fixtures: synthetic and real scans, and the rule that nothing skips in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

# before anything imports torch, also in child processes: small models are quickest on one thread,
# and several threads on a busy machine wait for each other a hundred times longer than they compute
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
REQUIRE_ALL = os.environ.get("MEDFEDPURE_REQUIRE_ALL") == "1"
NEVER_SKIPPED = ("browser", "data", "engine")
LONGEST_FIRST = ("engine", "slow", "browser")  # the rest fills the waiting times of these
COUNT = 40  # phantoms in the small world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no worker ends alone with one of them."""
    ranks: dict[Path, int] = {}
    for item in items:
        marks = [i for i, name in enumerate(LONGEST_FIRST) if item.get_closest_marker(name)]
        ranks[item.path] = min([ranks.get(item.path, len(LONGEST_FIRST)), *marks])
    items.sort(key=lambda item: ranks[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail skipped browser, data and engine tests if MEDFEDPURE_REQUIRE_ALL=1."""
    report = yield
    must_run = any(item.get_closest_marker(name) for name in NEVER_SKIPPED)
    if REQUIRE_ALL and must_run and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped under MEDFEDPURE_REQUIRE_ALL=1: {report.longrepr[-1]}"
    return report


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real scans, for tests marked `data`."""
    value = os.environ.get("MEDFEDPURE_DATA")
    if not value:
        pytest.skip("MEDFEDPURE_DATA does not name the folder of real scans")
    return Path(value)


@pytest.fixture(scope="session")
def tiny_system() -> MedFedPure:
    """Build a complete, fast, untrained system whose attention varies with the scan."""
    import torch

    from core.pipeline import build
    from tests.small_system import small_config

    torch.manual_seed(0)
    system = build(small_config(), {"preset": "tiny"})
    for network in system.classifier.model.attention:
        torch.nn.init.normal_(network[-1].weight)
    return system


@pytest.fixture
def brain_folder(tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that makes a folder like the real sources, `count` phantoms a class."""
    from core.scan import to_png
    from demo.phantom import draw_phantom
    from train.data.sources import SOURCES

    def make(count: int) -> Path:
        root = tmp_path / "data"
        seed = 0
        for source, classes in SOURCES.items():
            for folder, (label, _) in classes.items():
                (root / source / folder).mkdir(parents=True)
                for index in range(count):
                    scan = draw_phantom(seed, tumour=label == 1)
                    (root / source / folder / f"{index}.png").write_bytes(to_png(scan))
                    seed += 1
        return root

    return make


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data folder of forty phantoms and a manifest: 24 train, 8 validate, 8 test."""
    from core.scan import to_png
    from demo.phantom import draw_phantom
    from train.data.sources import BR35H, find_records, hash_files
    from train.data.split import Entry, Manifest

    root = tmp_path_factory.mktemp("world")
    for folder, tumour in (("yes", True), ("no", False)):
        (root / "data" / BR35H / folder).mkdir(parents=True)
        for i in range(COUNT // 2):
            scan = draw_phantom(2 * i + tumour, tumour)
            (root / "data" / BR35H / folder / f"{i:02}.png").write_bytes(to_png(scan))
    records = find_records(root / "data", [BR35H])
    digests = hash_files(root / "data", records)
    folds = ["val", "test", "train", "train", "train"]
    entries = [
        Entry(r.file, d, r.source, i, folds[i % 5])
        for i, (r, d) in enumerate(zip(records, digests, strict=True))
    ]
    (root / "manifests").mkdir()
    text = Manifest("paper", tuple(entries)).to_csv()
    (root / "manifests" / "paper.csv").write_text(text, encoding="utf-8")
    return root
