"""A small data folder with all four sources, their tables, masks and outlines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.scan import to_png
from demo.phantom import draw_phantom
from train.data.source_tables import COLLECTION, COLUMNS, IXI, TCGA
from train.data.sources import ALL_SOURCES, find_records, hash_files
from train.data.split import ASIDE, Entry, Manifest

BOX = (slice(128, 256), slice(64, 128))  # rows and columns of the tumour in a mask of 512


@pytest.fixture
def four_sources(brain_folder: Callable[[int], Path]) -> Path:
    """Make two scans of each class, and of two patients each of tcga-lgg and ixi.

    Of the collection's tumours glioma/0 has a mask, meningioma/0 one to be mirrored; of br35h's
    yes/0 has an outline. Patients of tcga-lgg have a scan with tumour and one without.
    """
    root = brain_folder(2)
    (root / "brain-tumor-mri-masks").mkdir()
    mask = np.zeros((512, 512), dtype=bool)
    mask[BOX] = True
    Image.fromarray(mask).save(root / "brain-tumor-mri-masks" / "7.png")
    circle = {"name": "circle", "cx": 112, "cy": 56, "r": 20}
    outline = {"filename": "0.png", "regions": [{"shape_attributes": circle}]}
    (root / "br35h" / "annotations_all.json").write_text(json.dumps({"0": outline}))
    write_table(
        root,
        COLLECTION,
        "brain-tumor-mri/glioma/0.png,MR1,7,brain-tumor-mri-masks/7.png,0",
        "brain-tumor-mri/meningioma/0.png,100,7,brain-tumor-mri-masks/7.png,1",
    )
    for folder in ("tcga-lgg/flair", "tcga-lgg/mask", IXI):
        (root / folder).mkdir(parents=True)
    lines = []
    for seed, (patient, tumour) in enumerate(
        [("CS_1", 0), ("CS_1", 1), ("DU_2", 0), ("DU_2", 1)], start=100
    ):
        name = f"{patient}_{tumour:03}"
        large = Image.fromarray(draw_head(seed, tumour == 1)).resize((256, 256))
        large.save(root / TCGA / "flair" / f"{name}.jpg", quality=95)
        file = f"tcga-lgg/mask/{name}.png" if tumour else ""
        if file:
            Image.fromarray(mask[::2, ::2]).save(root / file)
        site = patient[:2]
        lines.append(f"tcga-lgg/flair/{name}.jpg,flair,{patient},{site},{tumour},{tumour},{file},9")
    write_table(root, TCGA, *lines)
    names = ["IXI1_axial_040", "IXI1_sagittal_050", "IXI2_axial_040"]
    for seed, name in enumerate(names, start=200):
        (root / IXI / f"{name}.png").write_bytes(to_png(draw_phantom(seed, tumour=False)))
    facts = [name.split("_") for name in names]
    write_table(root, IXI, *(f"ixi/{'_'.join(f)}.png,t1,{f[0]},{f[1]},{f[2]},0" for f in facts))
    return root


@pytest.fixture
def manifests(four_sources: Path, tmp_path: Path) -> Path:
    """Write manifest 'patients' of the small data folder: the first of each kind is for training.

    The second is for validation; pituitary/1 is for testing, and IXI's sagittal slice put aside.
    """
    records = find_records(four_sources, ALL_SOURCES)
    entries = []
    for i, (r, digest) in enumerate(zip(records, hash_files(four_sources, records), strict=True)):
        is_first = r.file.endswith("/0.png") or r.patient in ("CS_1", "IXI1")
        fold = "train" if is_first else "val"
        fold = "test" if r.file.endswith("pituitary/1.png") else fold
        fold = ASIDE if r.plane == "sagittal" else fold
        facts = r.subtype, r.patient, r.sequence, r.plane
        entries.append(Entry(r.file, digest, r.source, i, fold, *facts))
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "patients.csv").write_text(Manifest("patients", tuple(entries)).to_csv())
    return folder


def write_table(root: Path, source: str, *lines: str) -> None:
    text = "\r\n".join([",".join(COLUMNS[source]), *lines, ""])
    (root / f"{source}.csv").write_bytes(text.encode())


def draw_head(seed: int, tumour: bool) -> np.ndarray:
    return (draw_phantom(seed, tumour)[0].numpy() * 255).round().astype(np.uint8)
