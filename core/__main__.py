"""Command line: `python -m core scan.png series.zip --json` prints one line a scan."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from core.attacks import FGSM, PGD, adaptive_logits
from core.attacks.base import LogitsFn
from core.checkpoint import WeightsError
from core.detector import SCORES
from core.pipeline import BATCH_SIZE, MedFedPure
from core.purifier import POLICIES
from core.scan import ScanError, Volume, read_volume
from core.stability import StabilityConfig, describe_stability
from core.weights import load

FIELDS = (
    "can_judge",
    "policy",
    "tumour_probability",
    "tumour_probability_undefended",
    "stable",
    "stable_radius",
    "stability_radius",
    "flip_distance",
    "purifying_turns",
    "flagged",
    "score",
    "tau",
    "t_star",
    "attention",
    "expert_probabilities",
    "timings_ms",
)
# its line of output, its scan unless there is an error
Slice = tuple[dict[str, Any], Tensor | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read all scans; return 0, 1 if a file could not be read, or 2 without usable weights."""
    parser = _build_parser()
    args = parser.parse_args(arguments)
    try:
        attack = _build_attack(args)
    except ValueError as error:
        parser.error(str(error))
    try:
        system = load(
            args.weights, hospital=args.hospital, score=args.score, policy=args.policy, d=args.d
        )
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 2
    from tqdm import tqdm

    failures, is_all = 0, args.slice == "all"
    hidden = not sys.stderr.isatty() or (len(args.scans) == 1 and not is_all)
    with tqdm(total=len(args.scans), unit="slice", leave=False, disable=hidden) as bar:
        for file in args.scans:
            slices = _read_slices(file, args.slice, args.any_picture, bar)
            for line, is_read in read_ahead(system, slices, attack, args):
                failures += not is_read and not (is_all and "slice" in line)
                with bar.external_write_mode():
                    _print(json.dumps(line) if args.json else _format_line(line))
                bar.update()
    return 1 if failures else 0


def _read_slices(
    file: str, wanted: int | str | None, any_picture: bool, bar: Any
) -> Iterator[Slice]:
    """Yield the output line of each chosen slice, with its scan unless there is an error.

    The progress bar, which counted one slice for the file, is told their number.
    """
    line: dict[str, Any] = {"file": file, **dict.fromkeys(FIELDS), "doubts": None, "error": None}
    try:
        volume = read_volume(file, any_picture=any_picture)
        numbers = _choose_slices(volume, wanted)
    except ScanError as error:
        yield line | {"error": str(error)}, None
        return
    bar.total = (bar.total or 0) + len(numbers) - 1
    line["doubts"] = volume.doubts
    if len(volume) > 1:
        line["notes"] = volume.notes
    for number in numbers:
        if len(volume) > 1:
            line["slice"] = number
        try:
            yield dict(line), volume.slice(number - 1)
        except ScanError as error:
            yield line | {"error": str(error)}, None


def _choose_slices(volume: Volume, wanted: int | str | None) -> Sequence[int]:
    """Choose slice numbers, counted from 1 as radiologists do."""
    if wanted == "all":
        return range(1, len(volume) + 1)
    number = volume.middle + 1 if wanted is None else int(wanted)
    if not 1 <= number <= len(volume):
        raise ScanError(f"There is no slice {number}: the volume has {len(volume)}.")
    return [number]


def read_ahead(
    system: MedFedPure, slices: Iterator[Slice], attack: FGSM | PGD | None, args: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the lines of slices, in order, and whether each was read.

    Two batches of a volume that share the cores wait less than the threads of one batch do.
    """
    # an adaptive attack would draw other noise for several scans at once
    size, threads = 1 if attack else BATCH_SIZE, torch.get_num_threads()
    workers = min(2, threads) if args.slice == "all" else 1

    def read(part: list[Slice]) -> list[tuple[dict[str, Any], bool]]:
        torch.set_num_threads(max(1, threads // workers))  # each worker its part of the cores
        outputs = _read(system, [scan for _, scan in part if scan is not None], attack, args)
        return [(line if x is None else line | next(outputs), x is not None) for line, x in part]

    parts = iter(lambda: list(itertools.islice(slices, size)), [])
    with ThreadPoolExecutor(workers) as pool:
        begun = deque(pool.submit(read, part) for part in itertools.islice(parts, workers))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(read, part) for part in itertools.islice(parts, 1))
            yield from done


def _read(
    system: MedFedPure, scans: list[Tensor], attack: FGSM | PGD | None, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Read scans, or the adversarial examples that move them away from their clean outputs."""
    if not scans:
        return
    x, seeds = torch.stack(scans).to(system.device), [args.seed] * len(scans)
    diagnoses = system.read_batch(x, seeds)
    if attack is not None:
        y = torch.tensor([int(d.is_tumour) for d in diagnoses], device=system.device)
        logits_fn: LogitsFn = system.classifier_logits
        if args.knows_defence:  # but not the seed of the reading
            logits_fn = adaptive_logits(system, itertools.count(args.seed + 1))
        diagnoses = system.read_batch(attack(logits_fn, x, y, seeds), seeds)
    for found in (diagnosis.to_dict() for diagnosis in diagnoses):
        times = {name: ms / len(scans) for name, ms in found["timings_ms"].items()}
        yield {name: found[name] for name in FIELDS} | {"timings_ms": times}


def _build_attack(args: argparse.Namespace) -> FGSM | PGD | None:
    if args.attack == "pgd":
        return PGD(args.eps, args.alpha, args.steps, args.norm)
    return FGSM(args.eps, args.norm) if args.attack == "fgsm" else None


def _format_line(line: dict[str, Any]) -> str:
    name = f"{line['file']} slice {line['slice']}" if "slice" in line else line["file"]
    if line["error"] is not None:
        return f"{name}: {line['error']}"
    output = (
        f"tumour {line['tumour_probability']:.1%} "
        f"(undefended {line['tumour_probability_undefended']:.1%})"
        if line["can_judge"]
        else "cannot judge (out of distribution)"
    )
    facts = ("stable", "stable_radius", "stability_radius", "purifying_turns")
    stability = f"{describe_stability(*(line[fact] for fact in facts))}, "
    stability = stability if line["can_judge"] else ""
    doubts = "".join(f"; doubtful: {doubt}" for doubt in line["doubts"])
    notes = "".join(f"; {note}" for note in line.get("notes", ()) if note not in line["doubts"])
    return (
        f"{name}: {output}, {stability}"
        f"{'flagged' if line['flagged'] else 'not flagged'} "
        f"(score {line['score']:.4g}, tau {line['tau']:.4g}), t_star {line['t_star']}, "
        f"{line['timings_ms']['total']:.0f} ms{doubts}{notes}"
    )


def _print(text: str) -> None:
    """Print a line; what the terminal cannot show, as in names of files, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _parse_slice(text: str) -> int | str:
    return text if text == "all" else int(text)


def _parse_seed(text: str) -> int:
    if not 0 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"must be from 0 to {2**31 - 1}, got {text}")
    return int(text)


def _parse_radius(text: str) -> float:
    try:
        return StabilityConfig(d=float(text)).d
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core",
        description="Read brain MRI slices with MedFedPure: detect and purify adversarial "
        "perturbations, then print how probable a tumour is. For research and teaching only, "
        "not for clinical use.",
        epilog="A file that cannot be read yields an error line, the other files are read, and the "
        "exit code is 1 (blank slices do not count with --slice all). It is 2 for invalid "
        "options, and for missing or altered weights.",
    )
    parser.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help="PNG, JPEG, BMP, TIFF, WebP, DICOM or NIfTI file, or zip or folder of DICOM slices",
    )
    parser.add_argument(
        "--slice",
        type=_parse_slice,
        metavar="N",
        help="slice of a volume, from 1, or 'all' for one line a slice (default: the middle one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--any-picture", action="store_true", help="do not refuse colour photographs"
    )
    parser.add_argument("--weights", metavar="DIR", help="folder (default: the published weights)")
    parser.add_argument(
        "--hospital", type=int, metavar="N", help="number in federated weights (default: their own)"
    )
    parser.add_argument(
        "--score", choices=SCORES, help="detector score that decides (default: as in the weights)"
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default=POLICIES[0],
        help="picture: answer from the scan itself, the purified scan is a picture; paper: purify "
        "flagged scans and answer from them; floor: purify all scans a little and flagged ones "
        "more, and answer from them (default: picture)",
    )
    parser.add_argument(
        "--d",
        type=_parse_radius,
        metavar="D",
        help="an answer that a change of at most D in each pixel flips is not stable; pixels in "
        "[0, 1] (default: as in the weights)",
    )
    parser.add_argument(
        "--seed", type=_parse_seed, default=0, help="seed of purifier and attack (default: 0)"
    )
    group = parser.add_argument_group("attack each scan first, away from its clean output")
    group.add_argument("--attack", choices=("pgd", "fgsm"), help="default: none")
    group.add_argument("--norm", choices=("linf", "l2"), default="linf", help="default: linf")
    group.add_argument(
        "--eps", type=float, default=0.015, help="radius, pixels in [0, 1] (default: .015)"
    )
    group.add_argument("--alpha", type=float, default=0.003, help="step of pgd (default: .003)")
    group.add_argument("--steps", type=int, default=7, help="steps of pgd (default: 7)")
    group.add_argument(
        "--knows-defence",
        action="store_true",
        help="adaptive attack: on the full pipeline, with EOT over its noise, not on the trained "
        "classifier; with policy picture the same",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
