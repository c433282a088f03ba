"""Command `python -m train`: training of a preset's parts on one protocol's scans."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

import torch

from core.checkpoint import WeightsError
from train.config import PresetError, list_presets, read_preset
from train.data import split
from train.data.corpus import PROTOCOLS, Corpus, load_corpus
from train.data.errors import DataError
from train.data.source_tables import COLLECTION, read_table
from train.data.sources import (
    ALL_SOURCES,
    check_sources,
    find_data_root,
    find_records,
    hash_files,
    load_scans,
)
from train.data.split_patients import build_patients, find_crossing, find_duplicates
from train.phases import PHASES
from train.pooled import Phases
from train.progress import Progress
from train.recipes import PARTS

CALIBRATE = "calibrate"
# name on the command line -> (line in --help, phases to run)
GROUPS = {
    **{phase.name: (phase.help, (phase.name,)) for phase in PHASES},
    "classifier": ("mixture and plain, one after the other", ("mixture", "plain")),
    CALIBRATE: (
        "calibration of the parts: temperatures, operating points, fused score, tau",
        (CALIBRATE,),
    ),
    "all": (
        "all parts of the system, then ready for core.load(OUT)",
        (*(phase.name for phase in PARTS), CALIBRATE),
    ),
}
SPLIT = "split"
# command with options of its own -> (line in --help, module with its main)
COMMANDS = {
    "partition": ("picture of the partition: each hospital's scans", "train.partition_figure"),
    "federated": (
        "federated training, in this process or on several machines",
        "train.federated.cli",
    ),
    "node": ("one hospital of a federation between hospitals", "train.federated.runtime.supernode"),
    "export": ("weights from the hospitals' state folders", "train.federated.export"),
    "calibrate-site": ("a hospital's weights for a new site", "train.calibrate_site"),
}
PROTOCOL_HELP = {
    "patients": "four sources of brain scans, split by patient, else by near-duplicates",
    "without-br35h": "patients; Br35H is not trained on, all its scans are for testing",
    "without-brain-tumor-mri": "patients; the same of the brain-tumour collection",
    "without-tcga-lgg": "patients; the same of TCGA-LGG",
    "paper": "Br35H, random 2,400/600 as published; near-duplicates in several folds",
    "cifar10": "CIFAR-10, official files or JPEG; needs --preset cifar10-paper",
    "folder": "any folder with a folder of pictures per class, by group",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 after a sentence if the input or the disk is at fault, or 130 if stopped.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        code: int = importlib.import_module(COMMANDS[argv[0]][1]).main(argv[1:])
        return code
    args = _build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        root = _choose_root(args.data)
        if args.phase == SPLIT:
            return _write_manifests(root, args.cache)
        preset = read_preset(args.preset)
        title = "-".join([preset.name, args.protocol, *args.sources])
        out = args.out or Path("runs") / title
        corpus = load_corpus(
            args.protocol, root, args.cache,
            sources=args.sources, with_masks=preset.classifier.loss.map_loss > 0,
        )  # fmt: skip
        phases = Phases(preset, corpus, out, args.seed)
        if args.sources:
            _log_sources(corpus, out, args.sources)
        for name in GROUPS[args.phase][1]:
            phases.calibrate() if name == CALIBRATE else phases.train(name)
    except (DataError, PresetError, WeightsError, ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    print(f"written to {out}", file=sys.stderr)
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train the parts of the system on one protocol's training scans; validation\n"
        "scans choose epochs and thresholds, test scans are never used.",
        epilog=_build_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("phase", choices=[*GROUPS, SPLIT], metavar="PHASE", help="see below")
    parser.add_argument(
        "--preset",
        default="default",
        metavar="NAME",
        help=f"{', '.join(list_presets())}, or a TOML file's path (default: default)",
    )
    parser.add_argument(
        "--protocol",
        default="patients",
        choices=PROTOCOLS,
        metavar="NAME",
        help="data set and split, see below (default: patients)",
    )
    parser.add_argument(
        "--sources",
        type=_parse_names,
        default=[],
        metavar="A,B",
        help="train on these sources of the protocol alone; the weights say so (default: all)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder that holds br35h/, brain-tumor-mri/, ... (default: MEDFEDPURE_DATA)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for weights, checkpoints and log.jsonl (default: runs/PRESET-PROTOCOL)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=Path(".cache"),
        help="folder for decoded scans, made once (default: .cache)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the initial weights and of all random draws (default: 0)",
    )
    parser.add_argument(
        "--threads",
        type=_parse_count,
        default=0,
        help="CPU threads (default: PyTorch's choice)",
    )
    return parser


def _build_epilog() -> str:
    phases = {name: text for name, (text, _) in GROUPS.items()}
    phases[SPLIT] = "writes the split manifests; trains nothing"
    phases |= {name: f"{text}; see {name} --help" for name, (text, _) in COMMANDS.items()}
    return "\n".join(
        [
            "phases:",
            *(f"  {name:14}  {text}" for name, text in phases.items()),
            "\nprotocols:",
            *(f"  {name:23}  {text}" for name, text in PROTOCOL_HELP.items()),
            "\nexamples:",
            "  python -m train all --data ../data",
            "  python -m train mixture --preset paper --protocol paper --data ../data --out runs/p",
            "\nCtrl-C or SIGTERM stop at the last checkpoint (one an epoch and every two minutes);",
            "the same command resumes from there. Exit code 2: the input was at fault.",
        ]
    )


def _parse_count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {value}")
    return value


def _parse_names(text: str) -> list[str]:
    return sorted({name.strip() for name in text.split(",")})


def _log_sources(corpus: Corpus, out: Path, sources: list[str]) -> None:
    progress = Progress("sources", out / "log.jsonl")
    progress.report(f"{', '.join(sources)} alone, as {corpus.protocol!r} in log and weights")
    progress.write(sources=sources, protocol=corpus.protocol, split_sha256=corpus.split_sha256)


def _choose_root(given: Path | None) -> Path:
    root = given or find_data_root()
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return root


def _write_manifests(root: Path, cache: Path) -> int:
    check_sources(root, ALL_SOURCES, "split")
    read_table(root, COLLECTION)  # find_records does without it, a split by patient does not
    records = find_records(root, ALL_SOURCES)
    digests, scans = hash_files(root, records), load_scans(root, records, cache)
    pairs = find_duplicates(records, scans)
    patients = build_patients(records, digests, pairs)
    split.MANIFESTS.mkdir(exist_ok=True)
    lines = [",".join(pair) for pair in find_crossing(patients, pairs)]
    (split.MANIFESTS / split.PAIRS).write_text("\n".join([*lines, ""]), encoding="utf-8")
    for manifest in (split.build_paper(records, digests, scans), patients):
        path = split.MANIFESTS / f"{manifest.protocol}.csv"
        path.write_text(manifest.to_csv(), encoding="utf-8")
        print(f"{manifest.protocol}: {len(manifest.entries)} scans, sha256 {manifest.sha256[:12]}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    sys.exit(main())
