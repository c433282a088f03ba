"""The plain classifier finished behind the purifier and behind filters, each with the same right.

A classifier that was trained on scans as they are reads filtered ones badly, whatever the filter.
So the plain classifier is trained on, from the weights that ship, on scans that were changed as it
will read them: the same scans, steps and seeds for each change.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import markdown as md
from bench import options
from bench.parallel import ParallelBatches, say
from bench.robustness.evaluate import evaluate
from bench.robustness.filters import gaussian, median
from bench.summaries import mark_correct, share_by_group
from core import metrics
from core.attacks import paper_attack
from core.classifier import Calibrated
from core.pipeline import MedFedPure
from train.config import read_preset
from train.data.corpus import load_fold
from train.data.dataset import Batch, Sample, ScanDataset
from train.phases.classifier import build_loss
from train.trainer import FitConfig, fit

HELP = "plain classifier finished behind the purifier and behind filters, by the same right"
EPOCHS, LEARNING_RATE = 10, 1e-3
NOTHING, PURIFIER = "nothing", "purifier"
CLEAN, PGD, ADAPTIVE = "clean", "PGD-7", "PGD-7 through both"
Change = Callable[[Tensor, Sequence[int]], Tensor]  # scans and their seeds to changed scans


@dataclass(frozen=True)
class Kind:
    """A way to change scans, by strength: all are trained on, one reads."""

    name: str
    strengths: Mapping[float, Change]

    def draw(self, generator: torch.Generator) -> Change:
        """Return the change of a strength drawn for a batch."""
        changes = list(self.strengths.values())
        return changes[int(torch.randint(len(changes), (1,), generator=generator))]


def list_kinds(pipeline: MedFedPure) -> list[Kind]:
    """Return the changes that are compared; strength 0 changes nothing."""

    def purify(x: Tensor, seeds: Sequence[int], t: int) -> Tensor:
        return pipeline.purify(x, torch.full((len(x),), t, device=x.device), seeds)

    same: Change = lambda x, _: x  # noqa: E731
    filters = {"gaussian": (gaussian, (1, 2, 3, 4, 5)), "median": (median, (3, 5, 7, 9))}
    return [
        Kind(NOTHING, {0: same}),
        Kind(PURIFIER, {0: same, **{t: partial(purify, t=t) for t in (50, 100, 150, 200, 250)}}),
        *(
            Kind(name, {0: same, **{s: lambda x, _, f=f, s=s: f(x, s) for s in strengths}})
            for name, (f, strengths) in filters.items()
        ),
    ]  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--val-limit", "--batch-size")
    add = parser.add_argument
    add("--epochs", type=int, default=EPOCHS, help=f"of training on (default: {EPOCHS})")
    add("--adaptive", type=int, default=200, help="scans attacked through change and classifier")
    add("--runs", type=Path, default=Path("runs") / "finishing", help="folder of the trainings")


def run(args: argparse.Namespace) -> None:
    """Trains and measures each kind of change; a stopped run resumes."""
    system = options.open_system(args)
    settings = {**options.settings_of(args), "epochs": args.epochs, "adaptive": args.adaptive}
    store = options.open_results(args, system, settings=settings)
    places = {"cache": args.cache, "manifests": args.manifests}
    scans = load_fold(args.protocol, "train", options.root_of(args), limit=None, **places)
    folds = options.open_validation(args), options.open_fold(args)
    lanes = ParallelBatches(system.pipeline.device, args.batch_size)
    for kind in list_kinds(system.pipeline):
        finished = partial(finish, system.pipeline, kind, scans, args.epochs, args.runs)
        store.row(
            kind.name, lambda k=kind, f=finished: measure(f(), k, *folds, lanes, args),
            strengths=list(kind.strengths),
        )  # fmt: skip
    store.row("paired", lambda: compare(store.content["rows"]), again=True)
    store.close()


def finish(
    pipeline: MedFedPure, kind: Kind, scans: ScanDataset, epochs: int, runs: Path
) -> Calibrated:
    """Return the plain classifier trained on behind a change; its last epoch is kept."""
    plain = copy.deepcopy(pipeline.plain)
    learn = plain.model.requires_grad_(True)
    table = read_preset("default").plain
    loss_of_changed = build_loss(table.loss, table.augment)

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        seeds = torch.randint(2**31, (len(sample.x),), generator=generator).tolist()
        with torch.no_grad():
            x = kind.draw(generator)(sample.x, seeds)
        return loss_of_changed(model, Sample(x, sample.y), generator)

    runs.mkdir(parents=True, exist_ok=True)
    config: FitConfig = replace(table.fit, epochs=epochs, lr=LEARNING_RATE)
    fit(
        learn, scans, loss, config, validate=lambda _: {"score": 0.0},
        checkpoint=runs / f"{kind.name}.state",
        settings={
            "kind": kind.name,
            "strengths": list(kind.strengths),
            "weights": [float(t.double().sum()) for t in pipeline.plain.state_dict().values()],
        },
        report=lambda line: say(f"{kind.name}: {line}"), device=pipeline.device,
    )  # fmt: skip
    plain.temperature.fill_(1.0)
    plain.bias.zero_()
    return plain.eval().requires_grad_(False)


def measure(
    plain: Calibrated,
    kind: Kind,
    validation: ScanDataset,
    test: ScanDataset,
    lanes: ParallelBatches,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return accuracies at the strength that is best on validation scans, clean and attacked.

    Best is the mean of both. PGD-7 attacks the classifier alone, which reads scans as they are; the
    adaptive attack goes through the change too, and knows its noise.
    """
    chosen = read(plain, kind.strengths, validation, lanes, f"{kind.name}: validation")
    score = {s: float(sum(bits[column].double().mean() for column in (CLEAN, PGD)) / 2)
             for s, bits in chosen.items()}  # fmt: skip
    strength = max(score, key=lambda s: score[s])
    change = kind.strengths[strength]
    found = read(plain, {strength: change}, test, lanes, f"{kind.name}: test")[strength]
    few = test.thin(args.adaptive)
    through = read(plain, {strength: change}, few, lanes, f"{kind.name}: adaptive", adaptive=True)
    found[ADAPTIVE] = through[strength][PGD]
    return {
        "strength": strength,
        "validation": {f"{s:g}": v for s, v in score.items()},
        "attack": vars(paper_attack()),
        "figures": {
            name: {
                **share_by_group(bits, (few if name == ADAPTIVE else test).groups),
                "right": "".join("01"[int(bit)] for bit in bits),
            }
            for name, bits in found.items()
        },
    }  # fmt: skip


def read(
    plain: Calibrated,
    changes: Mapping[float, Change],
    fold: ScanDataset,
    lanes: ParallelBatches,
    label: str,
    *,
    adaptive: bool = False,
) -> dict[float, dict[str, Tensor]]:
    """Mark the scans read right behind each change, clean and under PGD-7, bool (N,)."""

    def attack(scans: Batch) -> list[Tensor]:
        target = plain
        if adaptive:
            (change,) = changes.values()
            target = lambda z: plain(change(z, scans.seeds))  # noqa: E731
        return [scans.x, paper_attack()(target, *scans)]

    @torch.no_grad()
    def answer(scans: Batch, tries: list[Tensor]) -> Tensor:
        marks = [
            mark_correct(label, plain(change(x, scans.seeds)), scans.y)
            for change in changes.values()
            for x in tries
        ]
        return torch.stack(marks, 1)  # (B, changes * 2)

    columns = torch.cat(list(evaluate(attack, answer, fold, lanes, label))).T
    pairs = zip(columns[::2], columns[1::2], strict=True)
    return {s: {CLEAN: a, PGD: b} for s, (a, b) in zip(changes, pairs, strict=True)}


def compare(rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return McNemar's exact test of the purifier against each other kind, in every column."""
    own = rows[PURIFIER]["figures"]
    return {
        name: {
            column: dict(zip(("only_purifier", "only_it", "p"), metrics.mcnemar(
                *(torch.tensor([b == "1" for b in one[column]["right"]])
                  for one in (own, rows[name]["figures"]))), strict=True))
            for column in own
        }
        for name in rows if name != PURIFIER and "figures" in rows[name]
    }  # fmt: skip


NOTE = (
    "The plain classifier was trained on for {epochs} epochs on pooled scans behind each change, "
    "of all its strengths; the strength that reads is the best on validation scans (mean of clean "
    "and PGD-7). PGD-7 attacks the classifier alone; 'through both' attacks change and classifier, "
    "with the purifier's noise known, on {few} of the scans. p: McNemar's exact test against the "
    "purifier. In brackets 95 % by scan; by patient or group."
)


def table(results: md.Results) -> str:
    """Renders the purifier beside filters of the same right."""
    parts = []
    for protocol, result in md.results_of(results, "finishing", md.PROTOCOLS).items():
        rows, settings = result["rows"], result["provenance"]["settings"]
        columns = (CLEAN, PGD, ADAPTIVE)
        lines = []
        for name, row in rows.items():
            if "figures" not in row:
                continue
            test = rows["paired"].get(name, {}).get(PGD)
            cells = [md.accuracy(row["figures"][c]) for c in columns]
            lines.append([name, md.number(row["strength"], 1), *cells, md.p_value(test)])
        head = ["plain classifier behind", "strength", *(f"{c}, %" for c in columns), "p, PGD-7"]
        note = NOTE.format(epochs=settings["epochs"], few=settings["adaptive"])
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}\n\n{note} {md.source(result)}")
    return "\n\n".join(parts)
