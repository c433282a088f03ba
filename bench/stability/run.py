"""The command `stability`: answers that are refused where a small change flips them, attacked.

Each scan is read by the mixture of its own hospital, without detector and purifier. The attackers
know the reader, and the consistent ones its search for flips as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import options
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.robustness.attacks import random_corner
from bench.stability.outcomes import (
    SMALLER,
    Reads,
    name_smaller,
    pack,
    summarize_outcomes,
    unpack,
)
from bench.stability.tables import TABLES
from bench.summaries import to_bits
from bench.unseen.hospitals import Reader, find_readers, group_by_reader
from core import weights
from core.attacks import APGD, PGD, ConsistentPGD, Square, paper_attack
from core.attacks.apgd import RESTART
from core.attacks.base import margin
from core.attacks.threat_models import PAPER_EPS
from core.classifier import Calibrated
from core.diffusion import seeded_noise
from core.stability import RADII, find_flips
from train.data.dataset import Batch, ScanDataset, space_evenly
from train.data.split import read_manifest

HELP = "answers refused where a small change flips them, under attacks that know it"
GRAIN = 0.01  # standard deviation of the noise that is no attack
EVERY = 64  # scans that the consistent attacks take besides those within reach
STARTS, START_STEPS, QUERIES = 5, 20, 500  # of the attacks that check the search
Attack = Callable[[Calibrated, Batch], Tensor]

__all__ = ["HELP", "TABLES", "add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size", "--fold")
    add = parser.add_argument
    add("--steps", type=int, default=50, help="of the attacks (default: 50)")
    add(
        "--checked", type=int, default=100,
        help="scans on which Square and random starts look for flips that the search missed",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Measures the mixtures of all hospitals."""
    system = options.open_system(args)
    settings = {**options.settings_of(args), "steps": args.steps, "checked": args.checked}
    store = options.open_results(args, system, settings=settings)
    fold, loaded = options.open_fold(args), weights.load_all(args.weights)
    readers = find_readers(loaded, fold, read_manifest(args.protocol, args.manifests))
    device = options.device_of(args)
    classifiers = {number: s.classifier.to(device) for number, s in loaded.items()}
    measure(store, Hospitals(classifiers, readers, fold, args.batch_size), args.steps, args.checked)
    store.close()


@dataclass(frozen=True)
class Hospitals:
    """Scans, each with the classifier that reads it: `classifiers[readers[i]]` scan i."""

    classifiers: Mapping[Reader, Calibrated]
    readers: Sequence[Reader]
    fold: ScanDataset
    batch_size: int = 16

    def map(
        self, fn: Callable[[Calibrated, Batch], tuple[Tensor, ...]], rows: Sequence[int], label: str
    ) -> Iterator[Tensor]:
        """Yield each of the tensors (B, ...) that `fn` returns of a batch, for all `rows`."""
        groups, back = group_by_reader([self.readers[i] for i in rows])
        parts = []
        for reader, places in groups.items():
            classifier = self.classifiers[reader]
            own = self.fold.pick([rows[i] for i in places])
            batches = own.batches(self.batch_size, classifier.bias.device)
            parts += [fn(classifier, batch) for batch in progress(batches, label)]
        for column in zip(*parts, strict=True):
            yield torch.cat(column).cpu()[back]

    def read(self, attack: Attack, rows: Sequence[int], label: str) -> Reads:
        """Read the scans of `rows` after an attack, with the search of a reading."""

        def read(classifier: Calibrated, batch: Batch) -> tuple[Tensor, Tensor]:
            x = attack(classifier, batch)
            with torch.no_grad():
                right = classifier(x).argmax(1) == batch.y
            return right, find_flips(classifier, x).distance

        return Reads(*self.map(read, rows, label))


def measure(store: ResultFile, hospitals: Hospitals, steps: int, checked: int) -> None:
    """Fills `store`: a row for clean scans, for noise, and for each attack; the check last."""
    fold, rows = hospitals.fold, range(len(hospitals.fold))
    facts = {
        "labels": to_bits(fold.labels == 1), "units": list(fold.groups), "sources": fold.sources,
    }  # fmt: skip
    store.row("scans", lambda: facts)

    def row(name: str, meaning: str, attack: Attack) -> Reads:
        about = {"meaning": meaning, "radii": list(RADII)}
        return unpack(store.row(name, lambda: about | pack(hospitals.read(attack, rows, name))))

    clean = row("clean", "the scans themselves", lambda _, b: b.x)
    attacked = [row(name, *parts) for name, parts in list_attacks(steps).items()]
    is_near = clean.is_refused(PAPER_EPS)
    is_near |= ~torch.stack([clean.right, *(reads.right for reads in attacked)]).all(0)
    is_near[space_evenly(len(rows), EVERY)] = True
    near = is_near.nonzero()[:, 0].tolist()
    for d in RADII:
        store.row(
            f"CHCMOA {d}", lambda d=d: attack_consistently(hospitals, clean, near, d, steps)
        )  # fmt: skip
    few = space_evenly(len(rows), checked)
    store.row("missed", lambda: {"n": len(few)} | check_search(hospitals, few))
    store.row("outcomes", lambda: summarize_outcomes(store.content["rows"]), again=True)


def list_attacks(steps: int) -> dict[str, tuple[str, Attack]]:
    """Return the meaning and the function of noise and of attacks by name."""
    strongest = {loss: APGD(PAPER_EPS, steps, loss=loss) for loss in ("ce", "margin")}
    smaller = {s: APGD(s * PAPER_EPS, steps, loss="margin") for s in SMALLER}
    return {
        "grain": (f"Gaussian noise of sigma {GRAIN}: no attack", lambda _, b: add_grain(b)),
        "sign noise": (
            "every pixel moved by eps, up or down at random: no attack",
            lambda _, b: random_corner(b.x, PAPER_EPS, b.seeds),
        ),
        "PGD-7": ("the paper's attack", lambda c, b: paper_attack()(c, b.x, b.y, b.seeds)),
        "APGD-CE": (
            "APGD on the cross-entropy", lambda c, b: strongest["ce"](c, b.x, b.y, b.seeds)
        ),
        "HCMOA": (
            "APGD on the margin: a wrong answer of high confidence",
            lambda c, b: strongest["margin"](c, b.x, b.y, b.seeds),
        ),
        **{
            name_smaller(s): (
                f"the same of {s:g} eps", lambda c, b, a=a: a(c, b.x, b.y, b.seeds)
            )
            for s, a in smaller.items()
        },
    }  # fmt: skip


def add_grain(batch: Batch) -> Tensor:
    """Add Gaussian noise of `GRAIN` to scans, drawn from their seeds."""
    noise = seeded_noise(batch.x.shape[1:], batch.seeds).to(batch.x)
    return (batch.x + GRAIN * noise).clamp(0, 1)


def attack_consistently(
    hospitals: Hospitals, clean: Reads, near: Sequence[int], d: float, steps: int
) -> dict[str, Any]:
    """Attack the scans of `near`; the others, right under every other attack, stay clean."""
    attack = ConsistentPGD(PAPER_EPS, d, steps)
    found = hospitals.read(
        lambda c, b: attack(c, b.x, b.y, b.seeds), near, f"consistent, {d}"
    )  # fmt: skip
    reads = Reads(clean.right.clone(), clean.distance.clone())
    reads.right[near], reads.distance[near] = found
    return {
        "meaning": f"a wrong answer that no change within {d} turns: it runs the search itself",
        "radii": list(RADII),
        "attacked": len(near),
        **pack(reads),
    }


def check_search(hospitals: Hospitals, rows: Sequence[int]) -> dict[str, Any]:
    """Count the scans whose answer other attacks within d flip, and of them those it missed."""
    counts = {}
    for d in RADII:

        def search(classifier: Calibrated, batch: Batch, d: float = d) -> tuple[Tensor, Tensor]:
            found = find_flips(classifier, batch.x).distance
            return found, find_otherwise(classifier, batch, d)

        distance, is_flipped = hospitals.map(search, rows, f"check, {d}")
        missed = is_flipped & ~Reads(is_flipped, distance).is_refused(d)
        counts[str(d)] = {"flipped": int(is_flipped.sum()), "missed": int(missed.sum())}
    return {"by_radius": counts}


def find_otherwise(classifier: Calibrated, batch: Batch, d: float) -> Tensor:
    """Mark the scans that PGD from random starts, or Square, flips within d, bool (B,)."""
    with torch.no_grad():
        answers = classifier(batch.x).argmax(1)
    is_flipped = torch.zeros_like(answers, dtype=torch.bool)
    steps = PGD(d, 2.5 * d / START_STEPS, START_STEPS)
    tries = [
        steps(classifier, batch.x, answers, [seed + RESTART * k for seed in batch.seeds])
        for k in range(STARTS)
    ]
    tries.append(Square(d, QUERIES)(classifier, batch.x, answers, batch.seeds))
    with torch.no_grad():
        for x in tries:
            is_flipped |= margin(classifier(x), answers) > 0
    return is_flipped
