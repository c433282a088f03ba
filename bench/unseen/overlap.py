"""Test scans that weights of another split were trained on, found from the two manifests."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.options import OpenSystem, device_of
from bench.provenance import ProvenanceError, describe_weights
from bench.summaries import group_rows
from core import load
from core.checkpoint import read_manifest as read_weights
from train.data.dataset import ScanDataset
from train.data.split import Manifest, keep_sources, read_manifest

USED = ("train", "val")  # the scans for validation chose lengths of training and thresholds


def find_split(weights: Path, manifests: Path) -> Manifest:
    """Return the committed split that the weights of a folder were trained on.

    Raises:
        ProvenanceError: the files are of several splits, or of one that is not committed.
        WeightsError: there are no weights.
    """
    infos = read_weights(weights).values()
    splits = {(info.protocol, info.split_sha256) for info in infos}
    if len(splits) != 1:
        named = ", ".join(sorted({info.protocol for info in infos}))
        raise ProvenanceError(
            f"the weights in {weights} are of several splits ({named}): which scans trained them "
            "cannot be told"
        )
    [(protocol, sha256)] = splits
    name, _, sources = protocol.partition(" of ")  # as `keep_sources` names a split
    manifest = read_manifest(name, manifests)
    manifest = keep_sources(manifest, sources.split(", ")) if sources else manifest
    if manifest.sha256 != sha256:
        raise ProvenanceError(
            f"the weights in {weights} were trained on another split {protocol!r} "
            f"({sha256[:12] or 'unknown'}) than the one in {manifests} ({manifest.sha256[:12]}): "
            "name the folder of theirs with --manifests"
        )
    return manifest


def open_any_system(args: argparse.Namespace) -> tuple[OpenSystem, Manifest]:
    """Load weights of any committed split to test on the protocol's; return that split as well.

    Raises:
        ProvenanceError: the files are of several splits, or of one that is not committed.
        WeightsError: there are no weights.
    """
    tested = read_manifest(args.protocol, args.manifests)
    trained = find_split(args.weights, args.manifests)
    facts, pipeline = describe_weights(args.weights), load(args.weights).to(device_of(args))
    identity = {
        "protocol": args.protocol,
        "manifest_sha256": tested.sha256,
        "weights": facts.pop("sha256"),
        "hospital": pipeline.info.get("hospital"),
    }
    return OpenSystem(pipeline, identity, facts), trained


def find_used_units(tested: Manifest, trained: Manifest) -> set[int]:
    """Return the units of `tested`, patients or near-duplicates, with a scan that was used."""
    used = _find_used_files(trained)
    return {entry.group for entry in tested.entries if entry.sha256 in used}


def count_overlap(test: ScanDataset, trained: Manifest) -> dict[str, dict[str, int]]:
    """Count by source the scans of a fold that were used themselves or by their unit, and the rest.

    `patients` are those that are known; units of the rest are patients or near-duplicates.
    """
    if test.manifest is None:
        raise ValueError("the scans have no manifest that names their patients")
    files, units = _find_used_files(trained), find_used_units(test.manifest, trained)
    found = {}
    for source, rows in group_rows(test.sources).items():
        entries = [test.entries[i] for i in rows]
        left = [e for e in entries if e.group not in units]
        itself = sum(e.sha256 in files for e in entries)
        found[source] = {
            "n": len(entries),
            "used_scans": itself,
            "used_units": len(entries) - len(left) - itself,
            "left": len(left),
            "left_tumours": sum(e.record.label for e in left),
            "left_units": len({e.group for e in left}),
            "left_patients": len({e.patient for e in left if e.patient}),
        }
    return found


def _find_used_files(trained: Manifest) -> set[str]:
    return {entry.sha256 for entry in trained.entries if entry.fold in USED}
