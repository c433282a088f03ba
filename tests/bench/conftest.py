"""A tiny system and a data folder of phantoms with its own manifest: all real, all small."""

import hashlib
from pathlib import Path

import pytest
import torch

from bench.fold import Fold, load_fold
from core.mae import MAEConfig
from core.moe import MoEConfig
from core.pipeline import MedFedPure, PipelineConfig, build
from core.scan import to_png
from core.unet import UNetConfig
from demo.phantom import phantom
from train.split import Entry, Manifest

SCANS = 16
MOE = MoEConfig(sides=(28, 14), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4)
CONFIG = PipelineConfig(
    moe=MOE,
    plain=MOE,
    mae=MAEConfig(embed_dim=16, depth=1, num_heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    unet=UNetConfig(unshuffle=8, channels=(8, 16), time_dim=16),
)


@pytest.fixture(scope="session")
def pipeline() -> MedFedPure:
    """An untrained system; attention made to depend on the scan."""
    torch.manual_seed(0)
    system = build(CONFIG)
    for network in system.classifier.model.attention:
        torch.nn.init.normal_(network[-1].weight)
    return system


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of the data and of the manifests: Br35H's layout, filled with phantoms."""
    root = tmp_path_factory.mktemp("phantoms")
    entries = []
    for i in range(SCANS):
        file = f"br35h/{'yes' if i % 2 else 'no'}/{i:02}.png"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(to_png(phantom(i, bool(i % 2))))
        digest = hashlib.sha256((root / file).read_bytes()).hexdigest()
        fold = "train" if i < 2 else "val" if i < 8 else "test"
        entries.append(Entry(file, digest, "br35h", i // 2, fold))
    manifests = tmp_path_factory.mktemp("manifests")
    manifest = Manifest("leak-free", tuple(sorted(entries, key=lambda e: e.file)))
    (manifests / "leak-free.csv").write_text(manifest.to_csv())
    return root, manifests


@pytest.fixture(scope="session")
def test_fold(data) -> Fold:
    return load_fold("leak-free", "test", data[0], cache=None, manifests=data[1])


@pytest.fixture(scope="session")
def validation(data) -> Fold:
    return load_fold("leak-free", "val", data[0], cache=None, manifests=data[1])
