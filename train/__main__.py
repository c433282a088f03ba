"""`python -m train`: trains the parts of one preset on one protocol's scans."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from core.checkpoint import WeightsError
from train.config import PresetError, preset_names, read_preset
from train.data import DataError, default_root, file_sha256, find_records, load_scans
from train.phases import Phases, load_corpus
from train.split import MANIFESTS, PROTOCOLS, build_manifests, check_files, read_manifest

PHASES = {
    "diffusion": ("diffusion",),
    "mae": ("mae",),
    "mixture": ("mixture",),
    "plain": ("plain",),
    "classifier": ("mixture", "plain"),
    "calibrate": ("calibrate",),
    "all": ("diffusion", "mae", "mixture", "plain", "calibrate"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; 0 when all went well, 2 with a sentence where the input is at fault."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    try:
        root = _root(args.data)
        if args.phase == "split":
            return _split(root, args.cache)
        preset, manifest = read_preset(args.preset), read_manifest(args.protocol)
        check_files(manifest, root, manifest.fold("train", "val"))
        out = args.out or Path("runs") / f"{preset.name}-{args.protocol}"
        corpus = load_corpus(manifest, root, args.cache)
        phases = Phases(preset, corpus, out, args.seed)
        for name in PHASES[args.phase]:
            getattr(phases, name)()
    except (DataError, PresetError, WeightsError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"written to {out}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Trains the parts of the system on pooled scans. A killed run goes on from its last checkpoint "
        "when the same command is given again. 'all' runs diffusion, mae, classifier and calibrate.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "phase", choices=[*PHASES, "split"], help="what to train; 'split' writes the manifests anew"
    )
    parser.add_argument(
        "--preset",
        default="default",
        help=f"one of {', '.join(preset_names())}, or the path of a TOML file",
    )
    parser.add_argument(
        "--protocol", default="multi-source", choices=list(PROTOCOLS), help="which scans"
    )
    parser.add_argument(
        "--data", type=Path, help="folder of the data sets (or set MEDFEDPURE_DATA)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for weights, states and log (default: runs/PRESET-PROTOCOL)",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="folder of decoded scans"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="changes initial weights and every draw"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to PyTorch"
    )
    return parser


def _root(given: Path | None) -> Path:
    root = given or default_root()
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return root


def _split(root: Path, cache: Path) -> int:
    records = find_records(root)
    manifests = build_manifests(
        records, file_sha256(root, records), load_scans(root, records, cache)
    )
    MANIFESTS.mkdir(exist_ok=True)
    for manifest in manifests:
        (MANIFESTS / f"{manifest.protocol}.csv").write_text(manifest.to_csv(), encoding="utf-8")
        print(f"{manifest.protocol}: {len(manifest.entries)} scans, sha256 {manifest.sha256[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
