"""The command `leakage`: scans rebuilt from what a hospital sends, by phase and level.

Levels go from the raw gradient of one scan to what a preset really sends. A leak is that scans are
named among candidates more often than by chance, or that one is rebuilt with an SSIM of .5 or more
and better than every picture that costs no attack. The attackers take an update for a gradient, and
do not model the optimiser. No rebuilt scan is stored: figures alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.audits import rebuild
from bench.audits.rebuild import PHASES
from bench.audits.targets import CANDIDATES, Target, choose_targets, compare, compare_floors
from bench.audits.updates import HOSPITALS, LEVELS, Level, PhaseUnderAudit, open_phase, send
from bench.parallel import say
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from core.leakage import GradientMatching
from core.pipeline import MedFedPure
from core.weights import PARTS, load_all
from train.data.corpus import Corpus, load_corpus
from train.data.dataset import ScanDataset
from train.data.partition import select_client_corpus
from train.data.split import read_manifest
from train.federated.experiment import read_experiment
from train.recipes import build_network

HELP = "scans rebuilt from what a hospital sends: gradients, steps, rounds, sums of rounds"
STATES = ("first", "last")  # weights that a round starts from: untrained, and as published
SIMILAR = 0.5  # SSIM from which a scan that is above all floors counts as rebuilt
PATCHES, MATCHING = "visible patches copied", "gradient matching"


@dataclass(frozen=True)
class Budget:
    """Cost: targets, those of the search by gradient, and that search's settings."""

    targets: int
    searched: int
    steps: int
    restarts: int = 1


BUDGETS = {
    "smoke": Budget(2, 1, 4),
    "cpu": Budget(40, 10, 200),
    "full": Budget(40, 40, 2000, 3),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser)
    add = parser.add_argument
    add("--phase", choices=PHASES, action="append", help="repeat it; default: all")
    add("--preset", default="sites", help="of the federation whose rounds are audited")
    add("--budget", choices=list(BUDGETS), default="cpu", help="default: cpu")
    add(
        "--levels", type=options.parse_names, metavar="LIST",
        help="all by default, of " + "; ".join(LEVELS),
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Measures each phase at each level, from untrained and from published weights."""
    levels = args.levels or list(LEVELS)
    options.require_known("level", levels, LEVELS)
    budget, manifest = BUDGETS[args.budget], read_manifest(args.protocol, args.manifests)
    corpus = load_corpus(
        args.protocol, options.root_of(args), args.cache, args.manifests, with_masks=True
    )
    systems = {n: s.cpu() for n, s in load_all(args.weights).items() if n is not None}
    store = ResultFile(
        args.out or Path("results") / f"leakage-{args.protocol}.json",
        args.command,
        {
            "protocol": args.protocol, "manifest_sha256": manifest.sha256, "preset": args.preset,
            "weights": options.open_system(args).identity["weights"],
        },
        {"machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    for name in args.phase or PHASES:
        for state in STATES:
            audit = Audit(corpus, systems, args.preset, args.protocol, name, state)
            for level in levels:
                row = f"{name}, {state}, {level}"
                store.row(row, lambda a=audit, v=level: a.measure(v, budget), budget=vars(budget))
                if store.content["rows"][row]["is_leak"]:
                    say(f"{row}: a leak")
    store.close()


class Audit:
    """A phase whose hospitals' scans are to be rebuilt, from the weights of one state."""

    def __init__(
        self,
        corpus: Corpus,
        systems: dict[int, MedFedPure],
        preset: str,
        protocol: str,
        phase: str,
        state: str,
    ) -> None:
        self.corpus, self.systems, self.state = corpus, systems, state
        self.experiment = read_experiment(preset, protocol, 0, phase)
        self.partition = self.experiment.config.partition
        self.select = lru_cache(HOSPITALS + 1)(self._select)
        self.choose = lru_cache(self._choose)  # the same at every level, with their floors
        self.compare_floors = lru_cache(self._compare_floors)

    def open(self, hospital: int) -> PhaseUnderAudit:
        """Open the phase with a hospital's network, which knows its own statistics."""
        step = self.experiment.step
        system = self.systems[hospital + 1]
        model = build_network(step, self.experiment.preset, 0)
        if self.state == "last":
            model.load_state_dict(system.get_submodule(PARTS[step.file]).state_dict())
        return open_phase(self.experiment, model, self.select(hospital), lambda _: system)

    def _select(self, hospital: int) -> Corpus:
        """Return a hospital's scans."""
        return select_client_corpus(self.corpus, self.partition, hospital)

    def _choose(self, count: int) -> list[Target]:
        """Choose the scans that are to be rebuilt."""
        return choose_targets(self.corpus, self.partition, count, seed=0)

    def _compare_floors(self, count: int) -> dict[str, list[dict[str, float]]]:
        """Compute the figures of each floor, of every target."""
        figures = [compare_floors(target) for target in self.choose(count)]
        return {name: [found[name] for found in figures] for name in figures[0]}

    def measure(self, level: str, budget: Budget) -> dict[str, Any]:
        """Measure a level: figures of each attack beside the floors, and whether it leaks."""
        targets = self.choose(budget.targets)
        matching = GradientMatching(budget.steps, budget.restarts)
        found: dict[str, list[dict[str, float]]] = {PATCHES: [], MATCHING: []}
        labels = []
        for number, target in enumerate(targets):
            phase = self.open(target.hospital)
            sent = self.send(phase, LEVELS[level], target, number)
            if (patches := rebuild.copy_patches(phase, sent)) is not None:
                found[PATCHES].append(compare(patches, target) | {"target": number})
            label = rebuild.guess_label(phase, sent)
            if label is not None:
                labels.append(label == target.label)
            if number < budget.searched:
                guess = target.label if label is None else label
                scan = rebuild.search(phase, sent, guess, number, matching)
                found[MATCHING].append(compare(scan, target) | {"target": number})
        return summarize(found, self.compare_floors(budget.targets)) | {
            "meaning": LEVELS[level].meaning,
            "labels": {"k": sum(labels), "n": len(labels)} if labels else None,
        }

    def send(
        self, phase: PhaseUnderAudit, level: Level, target: Target, draw: int
    ) -> dict[str, Tensor]:
        """Return what the server sees at a level, the target's hospital first."""
        if level.is_gradient:
            y = torch.tensor([target.label])
            gradients = rebuild.differentiate(phase, target.scan, y, draw)
            return dict(zip(phase.names, gradients, strict=True))
        count = level.scans or phase.round_scans
        own = self._pick(target, count)
        clients = self.partition.num_clients
        others = [(target.hospital + k) % clients for k in range(1, level.hospitals)]
        parts = [own, *(self.select(h).train.thin(count) for h in others)]
        return send(phase, level, parts, draw)

    def _pick(self, target: Target, count: int) -> ScanDataset:
        """Pick scans of the target's hospital, the target first."""
        train = self.select(target.hospital).train
        own = [
            i for i, e in enumerate(train.entries)
            if e.file == self.corpus.train.entries[target.row].file
        ]  # fmt: skip
        generator = torch.Generator().manual_seed(target.row)
        rest = [i for i in torch.randperm(len(train), generator=generator).tolist() if i not in own]
        return train.pick([*own, *rest[: count - 1]])


def summarize(
    found: dict[str, list[dict[str, float]]], floors: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Summarize the figures of each attack and floor; a leak is one of any attack."""
    attacks = {}
    for name, rows in found.items():
        if not rows:
            continue
        above = [
            row["ssim"] >= SIMILAR
            and all(row["ssim"] > f[int(row["target"])]["ssim"] for f in floors.values())
            for row in rows
        ]
        attacks[name] = _summarize(rows) | {"rebuilt": sum(above)}
    return {
        "attacks": attacks,
        "floors": {name: _summarize(rows) for name, rows in floors.items()},
        "is_leak": any(a["rebuilt"] or a["named_at_least"] > a["chance"] for a in attacks.values()),
    }


def _summarize(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    named = sum(row["rank"] == 0 for row in rows)
    return {
        "n": len(rows),
        **{key: median(row[key] for row in rows) for key in ("psnr", "ssim", "ssim_head")},
        "best_ssim": max(row["ssim"] for row in rows),
        "named": named,
        "named_at_least": find_lower_bound(named, len(rows)),
        "chance": sum(row["chance"] for row in rows) / len(rows),
    }


def find_lower_bound(k: int, n: int, level: float = 0.95) -> float:
    """Return the lower end of the Clopper-Pearson interval of k among n, by bisection."""
    if k == 0:
        return 0.0
    tail, (low, high) = (1 - level) / 2, (0.0, k / n)
    for _ in range(60):
        p = (low + high) / 2
        counts = torch.distributions.Binomial(n, torch.tensor(p, dtype=torch.float64))
        above = float(counts.log_prob(torch.arange(k, n + 1, dtype=torch.float64)).exp().sum())
        low, high = (p, high) if above < tail else (low, p)
    return low


def table(results: md.Results) -> str:
    """Renders each attack of each phase and level, beside the floors."""
    parts = []
    for protocol, result in md.results_of(results, "leakage", md.PROTOCOLS).items():
        lines = [
            [row, name, f"{a['psnr']:.1f}", f"{a['ssim']:.2f}", f"{a['best_ssim']:.2f}",
             f"{a['named']}/{a['n']}", str(a["rebuilt"]),
             "; ".join(f"{f['ssim']:.2f}" for f in figures["floors"].values()),
             "yes" if figures["is_leak"] else "no"]
            for row, figures in result["rows"].items()
            for name, a in figures["attacks"].items()
        ]  # fmt: skip
        head = ["phase, weights, level", "attack", "PSNR, dB", "SSIM", "best SSIM",
                f"named among up to {CANDIDATES}", "rebuilt", "SSIM of mean scan; nearest; black",
                "leak"]  # fmt: skip
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}\n\n{md.source(result)}")
    return "\n\n".join(parts)
