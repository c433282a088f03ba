"""Options that commands share, and what they name: the system, its scans, the result file."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.provenance import machine_facts, weights_facts
from bench.result_file import ResultFile
from core import load
from core.checkpoint import WEIGHTS
from core.pipeline import MedFedPure
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.data.errors import DataError
from train.data.sources import find_data_root
from train.data.split import MANIFESTS, PROTOCOLS, read_manifest
from train.recipes import OPTIONAL_FILES

# options that decide no figure: rows computed under others may stand in the same file
INDIFFERENT = {
    "command", "weights", "data", "batch_size", "threads", "workers", "device", "cache",
    "manifests", "out", "fresh", "rows", "no_app", "methods", "runs", "personal_preset",
    "forget_changed", "eps", "against", "odd_only",
}  # fmt: skip


MORE: dict[str, dict[str, Any]] = {
    "--val-limit": {"type": int, "default": 240, "help": "largest number of validation scans"},
    "--batch-size": {"type": int, "default": 32, "help": "scans at a time; changes speed alone"},
    "--fold": {"choices": ("test", "val"), "default": "test", "help": "val: to choose settings"},
}


def add_system(parser: argparse.ArgumentParser, *more: str) -> None:
    """Adds the split, the weights trained on it, and its scans; `more` are names of MORE."""
    add = parser.add_argument
    add("--protocol", default="patients", choices=list(PROTOCOLS), help="split to test on")
    add("--weights", type=Path, default=WEIGHTS, help="folder of weights trained on that split")
    add_scans(parser, *more)


def add_scans(parser: argparse.ArgumentParser, *more: str) -> None:
    """Adds the number of scans, the device and the places; `more` are names of MORE."""
    add = parser.add_argument
    add("--limit", type=int, help="largest number of test scans, evenly spaced; default: all")
    add("--device", default="auto", help="cpu, cuda or auto")
    for name in more:
        add(name, **MORE[name])
    add_places(parser)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Adds the folders, the threads and the result file."""
    add = parser.add_argument
    add("--data", type=Path, help="folder of the data sets (or set MEDFEDPURE_DATA)")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to PyTorch")
    add("--cache", type=Path, default=Path(".cache"), help="folder of decoded scans")
    add("--manifests", type=Path, default=MANIFESTS, help="folder of the split manifests")
    add_output(parser, None)


def add_output(parser: argparse.ArgumentParser, default: Path | None) -> None:
    """Adds the result file."""
    add = parser.add_argument
    named = "result file" if default else "result file; default: named after command and protocol"
    add("--out", type=Path, default=default, help=named)
    add("--fresh", action="store_true", help="discard the rows in the result file")


def parse_names(text: str) -> list[str]:
    """Returns the names in a list separated by commas."""
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    if not names:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return names


def root_of(args: argparse.Namespace) -> Path:
    """Returns the data folder. Raises DataError where none is named."""
    root = args.data or find_data_root()
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return Path(root)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options that decide figures, in order."""
    return {k: v for k, v in sorted(vars(args).items()) if k not in INDIFFERENT}


def device_of(args: argparse.Namespace) -> torch.device:
    """Returns the device; 'auto' is CUDA where there is one."""
    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(args.device)


class OpenSystem(NamedTuple):
    """A pipeline on its device, what decides its figures, and further facts on its weights."""

    pipeline: MedFedPure
    identity: dict[str, Any]
    facts: dict[str, Any]


def open_system(args: argparse.Namespace, hospital: int | None = None) -> OpenSystem:
    """Loads the weights, which must have been trained on the protocol's split."""
    manifest = read_manifest(args.protocol, args.manifests)
    facts = weights_facts(args.weights, manifest)
    pipeline = load(args.weights, hospital=hospital, policy=None).to(device_of(args))
    identity = {
        "protocol": args.protocol,
        "manifest_sha256": manifest.sha256,
        "hospital": pipeline.info.get("hospital"),
    }
    hashes = facts.pop("sha256")
    of_system = {name: hashes[name] for name in hashes if name not in OPTIONAL_FILES.values()}
    return OpenSystem(pipeline, {**identity, "weights": of_system}, facts)


def open_fold(args: argparse.Namespace, name: str | None = None) -> ScanDataset:
    """Loads the fold that is measured: the test fold unless `name` or `--fold` says another."""
    name = name or str(getattr(args, "fold", "test"))
    places = {"cache": args.cache, "manifests": args.manifests}
    return load_fold(args.protocol, name, root_of(args), limit=args.limit, **places)


def open_validation(args: argparse.Namespace) -> ScanDataset:
    """Loads the validation scans, on which settings are chosen."""
    return open_fold(argparse.Namespace(**{**vars(args), "limit": args.val_limit}), name="val")


def open_results(
    args: argparse.Namespace,
    system: OpenSystem,
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> ResultFile:
    """Opens the command's result file: `--out`, `path`, or a name of command and protocol."""
    pipeline = system.pipeline
    about = {
        "score": pipeline.config.detector.score,
        "policy": pipeline.config.purifier.policy,
        "info": {k: v for k, v in pipeline.info.items() if isinstance(v, str | int | float)},
    }
    facts = {
        "weights_facts": system.facts,
        "system": about,
        "seeds": "of a scan: its position in the manifest; of everything else: 0",
        "machine": machine_facts(pipeline.device),
    }
    return ResultFile(
        args.out or path or result_path(args),
        args.command,
        {**system.identity, "settings": settings or settings_of(args)},
        facts,
        args.fresh,
    )


def result_path(args: argparse.Namespace, stem: str = "") -> Path:
    """Returns the default result file; figures of validation scans are not published."""
    folder = "runs" if getattr(args, "fold", "test") == "val" else "results"
    return Path(folder) / f"{stem or args.command}-{args.protocol}.json"


def require_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises ValueError for the first of `names` that is not `known`, and says what is."""
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
