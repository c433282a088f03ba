"""The command `unseen`: each source apart, all scans and those of patients never trained on."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench import options
from bench.parallel import ParallelBatches
from bench.result_file import ResultFile
from bench.robustness.attacks import A0, CLEAN, Attack, Attacker
from bench.robustness.evaluate import evaluate
from bench.robustness.systems import ALL_SCANS_SYSTEMS, System, build_systems, read_together
from bench.summaries import Reading, check_numbers, group_rows, join_readings
from bench.unseen.figures import Facts, Figures, share_by_unit, summarize_system
from bench.unseen.hospitals import find_readers, group_by_reader
from bench.unseen.overlap import count_overlap, find_used_units, open_any_system
from bench.unseen.sizes import LIMITS, measure_sizes
from bench.unseen.tables import ALL, NEVER, SYSTEMS, TABLES
from core import weights
from core.attacks.threat_models import PAPER_EPS
from core.pipeline import MedFedPure
from train.data.dataset import Batch, ScanDataset, space_evenly
from train.data.split import Manifest, find_test_parts

HELP = "patients and hospitals that the weights never saw, by source, view, kind and size"
MIN_PROBABILITY = 1e-7  # keeps log-odds finite
Scopes = Mapping[str, Sequence[int]]

__all__ = ["HELP", "TABLES", "add_options", "run"]


class Answers(NamedTuple):
    """Answers to N scans."""

    log_odds: dict[str, Tensor]  # of each system (N,), float64
    flagged: Tensor  # (N,) bool, alarms of the detector
    refused: Tensor  # (N,) bool, 'cannot judge'


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size")
    parser.add_argument(
        "--attacked", type=int, default=300,
        help="largest number of scans of each source under PGD-7, evenly spaced",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Measures weights on a split's test fold; they may have been trained on another split."""
    system, trained = open_any_system(args)
    store = options.open_results(args, system)
    test = options.open_fold(args)
    sizes = measure_sizes(test, options.root_of(args))
    systems = {n: s.to(options.device_of(args)) for n, s in weights.load_all(args.weights).items()}
    measure(store, systems, test, sizes, trained, args.attacked, args.batch_size)
    store.close()


def measure(
    store: ResultFile,
    systems: weights.Systems,
    test: ScanDataset,
    sizes: Mapping[int, float],
    trained: Manifest,
    attacked: int,
    batch_size: int = 32,
) -> None:
    """Fills `store`: what the weights know of the scans, clean answers, answers under PGD-7.

    Args:
        store: the result file.
        systems: of each hospital, each of which reads its own patients (see `find_readers`).
        test: the scans, with their manifest.
        sizes: sizes of tumours by row, as shares of the head.
        trained: the split that trained the weights.
        attacked: largest number of scans of a source under attack.
        batch_size: scans at a time.
    """
    if test.manifest is None:
        raise ValueError("the scans have no manifest that names their patients")
    scopes = find_scopes(test, find_used_units(test.manifest, trained))
    facts, readers = Facts.of(test, sizes), find_readers(systems, test, trained)

    def row(attack: Attack, some: Scopes) -> Figures:
        read = sorted(set().union(*some.values()))
        answers = read_at_hospitals(
            systems, [readers[i] for i in read], test.pick(read), attack, batch_size
        )
        place = {row: i for i, row in enumerate(read)}
        return {
            "meaning": attack.meaning,
            "attack": attack.algorithm and vars(attack.algorithm(Attacker(PAPER_EPS))),
            "n": len(read),
            "hospitals": sorted({reader for i in read if (reader := readers[i]) is not None}),
            "size_limits": LIMITS,
            "scopes": {
                name: summarize(answers, [place[i] for i in rows], facts.pick(rows))
                for name, rows in some.items()
            },
        }

    store.row("overlap", lambda: {"sources": count_overlap(test, trained)})
    store.row(CLEAN.key, lambda: row(CLEAN, scopes))
    store.row(A0.key, lambda: row(A0, thin_by_source(scopes, test.sources, attacked)))


def find_scopes(test: ScanDataset, used: Collection[int]) -> Scopes:
    """Return the rows of all scans, of those whose unit is not `used`, and of their two parts.

    The parts are those of a source that the split leaves out of training: the scans that
    'patients' tests on too, and the rest.
    """
    left = [i for i, unit in enumerate(test.groups) if unit not in used]
    parts = {
        f"{NEVER}, {name}": [i for i in rows if test.groups[i] not in used]
        for name, rows in find_test_parts(test.entries).items()
    }
    scopes: dict[str, Sequence[int]] = {ALL: range(len(test)), NEVER: left, **parts}
    return {name: rows for name, rows in scopes.items() if rows}


def thin_by_source(scopes: Scopes, sources: Sequence[str], limit: int) -> Scopes:
    """Return at most `limit` evenly spaced rows of each source and scope."""
    thin: dict[str, list[int]] = {}
    for name, rows in scopes.items():
        parts = group_rows([sources[i] for i in rows]).values()
        chosen = (part[i] for part in parts for i in space_evenly(len(part), limit))
        thin[name] = sorted(rows[i] for i in chosen)
    return thin


def read_at_hospitals(
    systems: weights.Systems,
    readers: Sequence[int | None],
    fold: ScanDataset,
    attack: Attack,
    batch_size: int,
) -> Answers:
    """Read every scan with the system of its reader, in the order of the scans."""
    groups, back = group_by_reader(readers)
    parts = [
        read_scans(systems[reader], fold.pick(rows), attack, batch_size)
        for reader, rows in groups.items()
    ]
    return Answers(
        {n: torch.cat([part.log_odds[n] for part in parts])[back] for n in parts[0].log_odds},
        torch.cat([part.flagged for part in parts])[back],
        torch.cat([part.refused for part in parts])[back],
    )


def read_scans(pipeline: MedFedPure, fold: ScanDataset, attack: Attack, batch_size: int) -> Answers:
    """Read every scan with every system, attacked through the system's own classifier.

    Alarms and 'cannot judge' are those of the full pipeline.
    """
    lanes, attacker = ParallelBatches(pipeline.device, batch_size), Attacker(PAPER_EPS)
    systems = build_systems(pipeline, SYSTEMS, tuple(ALL_SCANS_SYSTEMS))
    found: dict[str, Reading] = {}
    novelty: list[Tensor] = []
    for surface in dict.fromkeys(s.surface for s in systems):
        sharing = [s for s in systems if s.surface == surface]

        def read(
            scans: Batch, tries: list[Tensor], sharing: list[System] = sharing
        ) -> dict[str, Reading]:
            (x,) = tries
            if any(s.policy for s in sharing):
                novelty.append(measure_novelty(pipeline, x))
            return read_together(pipeline, sharing, x, scans.seeds)

        generate = partial(attack.generate, attacker, sharing[0])
        parts = list(evaluate(generate, read, fold, lanes, f"{attack.key}, {surface}"))
        found |= {s.name: join_readings([part[s.name] for part in parts]) for s in sharing}
    for name, reading in found.items():
        check_numbers(name, reading.probability)
    flagged = found[SYSTEMS[0]].flagged
    assert flagged is not None  # the full pipeline has a detector
    odds = {n: torch.logit(r.probability.double(), MIN_PROBABILITY) for n, r in found.items()}
    return Answers(odds, flagged, torch.cat(novelty) > pipeline.novelty.limit.cpu())


@torch.no_grad()
def measure_novelty(pipeline: MedFedPure, x: Tensor) -> Tensor:
    """Return the out-of-distribution score (B,) on the CPU."""
    return pipeline.measure_novelty(x).cpu()


def summarize(answers: Answers, index: Sequence[int], facts: Facts) -> Figures:
    """Compute the figures of the scans at `index`, whose facts are `facts`."""
    systems = {
        name: summarize_system(values[list(index)], facts)
        for name, values in answers.log_odds.items()
    }
    shares = {}
    for source, rows in group_rows(facts.sources).items():
        some, units = [index[i] for i in rows], [facts.units[i] for i in rows]
        shares[source] = {
            "flagged": share_by_unit(answers.flagged[some], units),
            "refused": share_by_unit(answers.refused[some], units),
        }
    return {"n": len(index), "systems": systems, "sources": shares}
