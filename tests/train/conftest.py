"""A small world to train in: forty phantoms with a split."""

from __future__ import annotations

from pathlib import Path

import pytest

COUNT = 40


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of forty phantoms with a manifest: 24 to train, 8 to validate, 8 to test."""
    from core.scan import to_png
    from demo.phantom import phantom
    from train.data import BR35H, file_sha256, find_records
    from train.split import Entry, Manifest

    root = tmp_path_factory.mktemp("world")
    for folder, tumour in (("yes", True), ("no", False)):
        (root / "data" / BR35H / folder).mkdir(parents=True)
        for i in range(COUNT // 2):
            scan = phantom(2 * i + tumour, tumour)
            (root / "data" / BR35H / folder / f"{i:02}.png").write_bytes(to_png(scan))
    records = find_records(root / "data", [BR35H])
    digests = file_sha256(root / "data", records)
    folds = ["val", "test", "train", "train", "train"]
    entries = [
        Entry(r.file, d, r.source, i, folds[i % 5])
        for i, (r, d) in enumerate(zip(records, digests, strict=True))
    ]
    (root / "manifests").mkdir()
    text = Manifest("leak-free", tuple(entries)).to_csv()
    (root / "manifests" / "leak-free.csv").write_text(text, encoding="utf-8")
    return root
