"""JSON report of one analysis, and its repetition from the report."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from platform import python_version
from typing import TYPE_CHECKING, Any

from torch import Tensor

from core import interval
from core.checkpoint import WeightsError, read_manifest
from core.scan import ScanError, read_scan, to_png, to_uint8
from core.weights import PARTS, system_file_name
from demo.analysis.analysis import OPTIONS, Analysis
from demo.analysis.attack import AttackSettings, iterate_attack
from demo.rendering import wording
from demo.rendering.tumour_map import list_cells, summarize_map

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure

NAME = "medfedpure-report"
PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "pydicom", "imagecodecs",
    "nibabel", "matplotlib", "gradio",
)  # fmt: skip
HASH_NOTE = "sha256 of the 224 x 224 grey levels, row by row, one byte each"
NO_WEIGHTS = {"none": "this system was not loaded from the shipped weights"}
NOT_A_REPORT = "This is not a report of MedFedPure, or it is damaged"


def build_document(a: Analysis) -> dict[str, Any]:
    """Return settings, numbers, both scans, hashes and versions; nothing of the opened file.

    The scans are the canonical pictures that the models saw, as lossless PNG.
    """
    described = describe_analysis(a)
    if a.attacked_scan is not None:
        described["attack"] |= _encode_picture(a.attacked_scan)
    return {
        "notice": described.pop("notice"),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "repeat": list_commands(a),
        "scan": _encode_picture(a.scan),
        **described,
        "weights_sha256": find_weight_hashes(a.info),
        "versions": collect_versions(),
    }


def describe_analysis(a: Analysis) -> dict[str, Any]:
    """Return all numbers of an analysis, without pictures but the tumour map, ready for JSON."""
    changed, largest, length = a.change
    proofs = {
        name: {"says": wording.CLASSES[c.label], "eps": c.eps} for name, c in a.certificates.items()
    }
    elsewhere = {name: [asdict(at) for at in readings] for name, readings in a.elsewhere.items()}
    return {
        "notice": wording.NOTICE,
        "attack": {
            **a.settings.to_dict(),
            "changed_share": changed,
            "largest_change_levels": largest,
            "l2_length": length,
            "ms": a.attack_ms,
        },
        "clean": _describe_reading(a.clean) if a.clean else None,
        "attacked": _describe_reading(a.attacked) if a.attacked else None,
        "system": a.info,
        "doubts": list(a.doubts),
        "volume_answer": a.volume_answer or None,
        "certificates": proofs or None,
    } | ({"at_each_hospital": elsewhere} if elsewhere else {})


def to_json(a: Analysis) -> bytes:
    """Return the report as a file."""
    return json.dumps(build_document(a), indent=2, default=str).encode()


def list_commands(a: Analysis) -> dict[str, str]:
    """Return command lines that repeat the analysis, or the reading of a downloaded picture."""
    options = f"--seed {a.settings.seed}"
    for name, value in ({"hospital": a.hospital} | a.options).items():
        options += f" --{name} {value}" if value is not None else ""
    lines = {
        "whole analysis": f"python -m demo.repeat {NAME}.json",
        "clean reading": f"python -m core scan.png {options} --json",
    }
    if a.attacked is not None:
        lines["attacked reading"] = f"python -m core attacked-scan.png {options} --json"
    return lines


def hash_levels(levels: Any) -> str:
    """Return the sha256 of uint8 levels (1, 224, 224), independent of any picture format."""
    return hashlib.sha256(levels.tobytes()).hexdigest()


@cache
def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the numbers."""
    found = {"python": python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def find_weight_hashes(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of each weights file in use; empty if they are not the shipped ones.

    Args:
        info: the system's `info`, which names the split of the weights and the hospital.
    """
    try:
        files = read_manifest()
    except WeightsError:
        return {}
    return {
        name: file.sha256
        for name, file in files.items()
        if file.split_sha256 == info.get("split_sha256")
        and name in (*PARTS, interval.FILE, system_file_name(info.get("hospital")))
    }


def repeat_analysis(system: MedFedPure, report: Mapping[str, Any]) -> Analysis:
    """Repeat a report: read the scan, attack it, read the attacked scan.

    Raises:
        ValueError: not a report, or its scan is not the one that was read.
    """
    try:
        png = base64.b64decode(report["scan"]["png"].partition(",")[2])
        scan, sha256 = read_scan(png), report["scan"]["sha256"]
        values = {field.name: report["attack"][field.name] for field in fields(AttackSettings)}
        settings = AttackSettings(**values)
    except (ScanError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{NOT_A_REPORT}: {error}") from None
    if hash_levels(to_uint8(scan)) != sha256:
        raise ValueError("The report's scan is not the one that was read: its sha256 differs.")
    options = {name: report["system"].get(name) for name in OPTIONS}
    system = system.with_options(**options)
    clean = system.read(scan, settings.seed)
    done = Analysis(scan, settings, clean=clean, info=system.info | options)
    if settings.kind == "none":
        return done
    steps = tuple(iterate_attack(system, scan, settings))
    attacked = system.read(steps[-1].x_adv[0].cpu(), settings.seed)
    return replace(done, steps=steps, attacked=attacked)


def _describe_reading(d: Diagnosis) -> dict[str, Any]:
    return d.to_dict() | summarize_map(d) | {"tumour_map": list_cells(d.tumour_map)}


def _encode_picture(scan: Tensor) -> dict[str, str]:
    return {
        "sha256": hash_levels(to_uint8(scan)),
        "hashed": HASH_NOTE,
        "png": "data:image/png;base64," + base64.b64encode(to_png(scan)).decode("ascii"),
    }
