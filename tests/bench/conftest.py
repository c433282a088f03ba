"""A data folder of phantoms with manifests of its own, and the tiny system's weights for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from bench.provenance import machine_facts
from bench.result_file import ResultFile
from bench.robustness import checks
from bench.robustness.attacks import Budget
from bench.robustness.systems import System, build_systems
from core.checkpoint import write_manifest
from core.pipeline import MedFedPure
from core.scan import to_png
from core.weights import PARTS, SYSTEM, save_part, save_system_file
from demo.phantom import draw_phantom
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.data.split import PROTOCOLS, Entry, Manifest, read_manifest

if TYPE_CHECKING:
    from bench.federation.trainings import Places

SCANS = 16


@pytest.fixture(scope="module")
def places(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The world's phantoms, and a folder of its own for the federations of a file."""
    from bench.federation.trainings import Places

    runs = tmp_path_factory.mktemp("federations")
    return Places(world / "data", world / "cache", world / "manifests", runs)


@pytest.fixture(scope="session")
def pipeline(tiny_system: MedFedPure) -> MedFedPure:
    return tiny_system


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of the data and of the manifests: both sources' layout, filled with phantoms."""
    root, manifests = tmp_path_factory.mktemp("phantoms"), tmp_path_factory.mktemp("manifests")
    entries = []
    for i in range(SCANS):
        fold = "train" if i < 2 else "val" if i < 8 else "test"
        entries.append(_entry(root, "br35h", "yes" if i % 2 else "no", i, fold))
    for i, folder in enumerate(("glioma", "notumor", "meningioma", "pituitary")):
        entries.append(_entry(root, "brain-tumor-mri", folder, 100 + i, "test"))
    entries.sort(key=lambda e: e.file)
    for protocol, sources in PROTOCOLS.items():
        lines = tuple(e for e in entries if e.source in sources)
        (manifests / f"{protocol}.csv").write_text(Manifest(protocol, lines).to_csv())
    return root, manifests


def _entry(root: Path, source: str, folder: str, seed: int, fold: str) -> Entry:
    file = f"{source}/{folder}/{seed:03}.png"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    picture = to_png(draw_phantom(seed, folder not in ("no", "notumor")))
    (root / file).write_bytes(picture)
    return Entry(file, hashlib.sha256(picture).hexdigest(), source, seed // 2, fold)


@pytest.fixture(scope="session")
def test_fold(data) -> ScanDataset:
    return load_fold("paper", "test", data[0], cache=None, manifests=data[1])


@pytest.fixture(scope="session")
def validation(data) -> ScanDataset:
    return load_fold("paper", "val", data[0], cache=None, manifests=data[1])


@pytest.fixture(scope="session")
def tiny() -> Budget:
    """Of a suite that is over at once."""
    return Budget(
        scans=3, steps=1, restarts=1, starts=1, eot=2, queries=2, few_scans=2, curve_scans=1,
        others=1, checked=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quick_checks() -> Iterator[None]:
    """Self-checks of one step on two scans: that each can fail is asserted in test_checks."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FEW_STEPS", "LARGE_EPS_STEPS", "SCORE_STEPS", "SCORE_QUERIES"):
            patch.setattr(checks, name, 1)
        patch.setattr(checks, "CHECKED_SCANS", 2)
        yield


@pytest.fixture(scope="module")
def four(test_fold: ScanDataset) -> ScanDataset:
    return test_fold.thin(4)


@pytest.fixture(scope="module")
def known(pipeline: MedFedPure) -> dict[str, System]:
    """The systems of the suite."""
    return {t.name: t for t in build_systems(pipeline)}


@pytest.fixture
def store(tmp_path: Path) -> ResultFile:
    facts = {"machine": machine_facts(torch.device("cpu"))}
    return ResultFile(tmp_path / "suite.json", "robustness", {"of": "this"}, facts)


@pytest.fixture(scope="session")
def weights(pipeline, data, tmp_path_factory) -> Path:
    """The tiny system as a folder of weights of protocol `paper`."""
    folder = tmp_path_factory.mktemp("weights")
    split = read_manifest("paper", data[1]).sha256
    for name, place in PARTS.items():
        save_part(pipeline.get_submodule(place), folder, name, {}, split)
    save_system_file(pipeline, folder, split)
    write_manifest(folder, [*PARTS, SYSTEM], preset="tiny", protocol="paper", commit="none")
    return folder
