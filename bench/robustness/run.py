"""Accuracy under attack: the attack suite with `--budget`, else all scans under PGD-7."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import options
from bench.parallel import ParallelBatches, say
from bench.result_file import ResultFile, ResultFileError
from bench.robustness import all_scans, tables
from bench.robustness.attacks import (
    BUDGETS,
    COMMITTED,
    KNOWN_NOISE,
    Attacker,
    Budget,
    attack_titles,
    attacks_named,
    row_names,
)
from bench.robustness.checks import SLACK, check_system, run_checks
from bench.robustness.evaluate import comparison_masks, evaluate_scans, run_suite
from bench.robustness.randomness import check_noise, measure_randomness
from bench.robustness.systems import (
    ALL_SCANS_SYSTEMS,
    SUITE_SYSTEMS,
    System,
    build_systems,
    tensors_key,
)
from bench.robustness.worst_case import Rows, compare_rows, robust_mask, summarize_systems
from bench.summaries import share_by_group
from core import load
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

HELP = "accuracy under attack, all systems side by side"
CURVE = (0.004, 0.008, 0.015, 0.031, 0.06)
CURVED = ("defence", "trained-mixture", "undefended")
STOCHASTIC = "defence"  # whose noise is drawn anew, for A8
CHECKS_VERSION = 3  # raised where a self-check is added: the rows are measured again


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    others: Sequence[MedFedPure],
    test: ScanDataset,
    names: Sequence[str],
    systems: Sequence[str] | None,
    budget: Budget,
    *,
    eps: float,
    lanes: ParallelBatches,
    forget_changed: bool = False,
) -> None:
    """Fill `store`: checks, a row for each attack on each system, curve, fresh noise, summaries.

    Raises:
        ResultFileError: the file holds rows of other tensors, and `forget_changed` is not set.
        ValueError: a system's outputs cannot be attacked.
    """
    fold = test.thin(budget.scans)
    chosen = build_systems(pipeline, systems)
    for system in chosen:
        check_system(system, fold, lanes.device)
    forget(store, build_systems(pipeline), forget_changed)
    surrogates = [pipeline.plain_logits, *(other.classifier_logits for other in others)]
    attacker = Attacker(eps, budget, surrogates)
    summarize = partial(_summarize, store, fold, pipeline, budget)
    summarize()
    for system in chosen:
        check = partial(run_checks, system, fold.thin(budget.checked), eps, lanes.device)
        store.row(f"self-check: {system.name}", check, budget=vars(budget), laws=CHECKS_VERSION)
    run_suite(store, fold, chosen, attacks_named(names), attacker, lanes, summarize)
    summarize()
    if KNOWN_NOISE in names and STOCHASTIC not in [t.name for t in chosen]:
        say(f"A8 (known noise) is measured on {STOCHASTIC!r} alone")
    few = fold.thin(budget.curve_scans)
    for system in [t for t in chosen if t.name in CURVED]:
        for size in CURVE if "A3" in names else ():
            evaluate_curve(store, few, system, size, budget, lanes)
        if system.name == STOCHASTIC and KNOWN_NOISE in names:
            store.row(
                f"randomness: {system.name}",
                lambda t=system: measure_randomness(store, t, few, attacker, lanes),
                budget=vars(budget),
            )
            summarize()


def forget(store: ResultFile, known: Sequence[System], allowed: bool) -> None:
    """Remove rows of other weights than the systems' from the file, where that is allowed.

    Raises:
        ResultFileError: there are some, and it is not.
    """
    keys, stale = {system.name: system.key for system in known}, dict[str, None]()
    for place in ("rows", "unfinished"):
        for name, row in list(store.content[place].items()):
            system = name.rpartition(": ")[2]
            if system in keys and row.get("weights") == keys[system]:
                continue
            stale[system] = None
            if allowed:
                say(f"{name}: of other weights, forgotten")
                del store.content[place][name]
    if stale and not allowed:
        raise ResultFileError(
            f"{store.path} holds figures of other weights ({', '.join(stale)}): name another "
            "--out, or pass --forget-changed to take them out; rows of the rest stay"
        )


def _warnings(rows: Rows, known: Sequence[System], few: Tensor, checked: Tensor) -> list[str]:
    """Collect the warnings of all finished rows."""
    found: list[str] = []
    for system in known:
        checks = rows.get(f"self-check: {system.name}", {"warnings": []})
        older = [f"{system.name}: its self-checks are those of older code"]
        found += checks.get("warnings", older)
        if not system.refuses:  # a stronger attack is refused more often
            found += compare_rows(rows, system.name, few, checked, SLACK)
        if noise := rows.get(f"randomness: {system.name}"):
            found += [f"{system.name}: {warning}" for warning in check_noise(noise, SLACK)]
    return found


def _summarize(
    store: ResultFile,
    fold: ScanDataset,
    pipeline: MedFedPure,
    budget: Budget,
    only: str | None = None,
) -> None:
    """Write the worst case of each system, or of one, and its pending attacks."""
    rows, before = store.content["rows"], store.content.get("standings", {}) if only else {}
    every = build_systems(pipeline)
    taus = {t.name: t.detector.tau for t in every if t.detector}
    found = {**before, **summarize_systems(rows, fold, taus, only)}
    known = [t for t in every if t.name in found]  # in their order
    for system in known:
        fitting = [a.key for a in attacks_named(row_names()) if a.fits_to(system)]
        waits = [n for n in fitting if f"{n}: {system.name}" not in rows]
        if system.name == STOCHASTIC and f"randomness: {system.name}" not in rows:
            waits.append(KNOWN_NOISE)
        found[system.name]["to_come"] = waits
    store.content["standings"] = {system.name: found[system.name] for system in known}
    own = {k: r for k, r in rows.items() if len(r.get("right", "")) in (0, len(fold))}
    warnings = _warnings(own, every, *comparison_masks(fold, budget))
    for warning in warnings:
        store.warn(warning)
    store.content["warnings"] = warnings
    store.write()


def evaluate_curve(
    store: ResultFile,
    few: ScanDataset,
    system: System,
    eps: float,
    budget: Budget,
    lanes: ParallelBatches,
) -> None:
    """Measure APGD-CE at one eps on a subset of the scans, as a row of its own."""
    _, attack = attacks_named(["A3"])
    generate = partial(attack.generate, Attacker(eps, budget), system)
    name, every = f"curve {eps:g}: {system.name}", torch.ones(len(few), dtype=torch.bool)

    def row() -> dict[str, Any]:
        found = evaluate_scans(store, name, system, few, every, generate, lanes)
        facts = {"curve": system.name, "eps": eps, "weights": system.key}
        return {**facts, **share_by_group(robust_mask(found), few.groups)}

    store.row(name, row, budget=vars(budget))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, *options.MORE)
    _add_attacks(parser)
    add = parser.add_argument
    add(
        "--budget", choices=list(BUDGETS),
        help="run the attack suite A0 to A11, each on the scans that a system still reads right",
    )  # fmt: skip
    add(
        "--workers", type=int, default=1,
        help="with a budget: batches side by side; with --threads 1 as many as there are cores",
    )  # fmt: skip
    add(
        "--forget-changed", action="store_true",
        help="with a budget: remove rows of systems whose weights have changed; the rest stay",
    )  # fmt: skip
    add("--hospital", type=int, help="hospital whose system is read, of a federation's weights")


def _add_attacks(parser: argparse.ArgumentParser) -> None:
    """Adds attacks, systems and the size of the perturbation."""
    add, titles = parser.add_argument, attack_titles()
    known = ", ".join(f"{name} {titles[name]}" for name in row_names())
    add(
        "--rows", type=parse_rows, metavar="LIST",
        help="of clean, A0 (brings A0-8bit along), both by default; with a budget all by default, "
        f"ranges as A1..A6, of {known}",
    )  # fmt: skip
    add(
        "--systems", type=options.parse_names, metavar="LIST",
        help="all by default, of " + ", ".join(ALL_SCANS_SYSTEMS)
        + "; with a budget of " + ", ".join(SUITE_SYSTEMS),
    )  # fmt: skip
    add("--attack-eps", type=float, default=0.015, help="size of the perturbation, L-inf")


def parse_rows(text: str) -> list[str]:
    """Returns the names in a list; A1..A3 is a range."""
    names: list[str] = []
    known = row_names()
    for name in options.parse_names(text):
        first, dots, last = name.partition("..")
        if not dots:
            names.append(name)
        elif first in known and last in known and known.index(first) <= known.index(last):
            names += known[known.index(first) : known.index(last) + 1]
        else:
            raise argparse.ArgumentTypeError(f"{name!r} is no range of {known[0]} to {known[-1]}")
    return names


def run(args: argparse.Namespace) -> None:
    """Measures the attack suite with `--budget`, else clean scans and A0 on all of them."""
    system = options.open_system(args, args.hospital)
    pipeline = system.pipeline
    if args.budget:
        _run_suite(args, system)
        return
    store, test = options.open_results(args, system), options.open_fold(args)
    all_scans.measure(
        store, pipeline, test, options.open_validation(args), args.rows or ["clean", "A0"],
        args.systems, eps=args.attack_eps, batch_size=args.batch_size,
    )  # fmt: skip
    store.close()


def _run_suite(args: argparse.Namespace, system: options.OpenSystem) -> None:
    """Run the attack suite; rows carry their system's weights key, the file the surrogates'."""
    pipeline, budget = system.pipeline, BUDGETS[args.budget]
    hospitals = [
        h for h in pipeline.info.get("hospitals", []) if h != pipeline.info.get("hospital")
    ]
    others = [
        load(args.weights, hospital=h).to(pipeline.device) for h in hospitals[: budget.others]
    ]
    surrogates = [pipeline.plain, *(other.classifier for other in others)]
    system.facts["sha256"] = system.identity.pop("weights")
    system.identity["lent"] = [tensors_key(part) for part in surrogates]
    settings = {k: v for k, v in options.settings_of(args).items() if k != "systems"}
    store = options.open_results(args, system, result_path(args), settings)
    measure(
        store,
        pipeline,
        others,
        options.open_fold(args),
        args.rows or row_names(),
        args.systems,
        budget,
        eps=args.attack_eps,
        lanes=ParallelBatches(pipeline.device, args.batch_size, args.workers),
        forget_changed=args.forget_changed,
    )
    store.close()


def result_path(args: argparse.Namespace) -> Path:
    """Returns the default result file; the attack suite's is named after its budget."""
    stem = "ladder" if args.budget == COMMITTED else f"ladder-{args.budget}"
    return options.result_path(args, stem if args.budget else "")


TABLES = tables.TABLES
