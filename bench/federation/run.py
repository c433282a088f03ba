"""The command `federation`: cost and ablations of the federation engine, a row each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from bench import options
from bench.federation import tables
from bench.federation.trainings import LEARNING, PRESET, FederationFixture, Places, select_settings
from bench.parallel import say
from bench.provenance import key_of, machine_facts
from bench.result_file import Figures, ResultFile
from train.config import read_preset
from train.data.split import PROTOCOLS, read_manifest

HELP = "the federation engine: overhead, payload, number of clients, poisoning, normalisation"
ROWS = ("overhead", "payload", "scaling", "poison", "batch_norm", "personal")
TABLES = {"federation": tables.federation}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add(
        "--rows", type=options.parse_names, metavar="LIST",
        help="all by default, of " + ", ".join(ROWS),
    )  # fmt: skip
    add("--protocol", default="patients", choices=list(PROTOCOLS), help="of the engine's rows")
    add("--seed", type=int, default=0, help="of the trainings; of 'personal' the first of three")
    add(
        "--personal-preset", default=PRESET, metavar="NAME",
        help="preset that the row 'personal' trains; another than the default is another row",
    )  # fmt: skip
    add("--runs", type=Path, default=Path("runs") / "federation", help="folder of the trainings")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Measures the rows."""
    names = select_rows(args.rows)
    places = Places(options.root_of(args), args.cache, args.manifests, args.runs)
    manifests = {p: read_manifest(p, args.manifests).sha256 for p in (args.protocol, LEARNING)}
    settings = options.settings_of(args)
    store = ResultFile(
        args.out or Path("results") / "federation.json", "federation",
        {
            "manifest_sha256": manifests, "settings": settings,
            "preset": key_of(select_settings(read_preset(PRESET))),
        },
        {"machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    fixture = FederationFixture(places, args.protocol, seed=args.seed)
    measure(store, fixture, names, args.personal_preset)
    store.close()


def select_rows(names: Sequence[str] | None) -> list[str]:
    """Returns the rows of these names, all by default. Raises ValueError for an unknown one."""
    options.require_known("row", names or (), ROWS)
    return [name for name in ROWS if not names or name in names]


def measure(
    store: ResultFile,
    fixture: FederationFixture,
    names: Sequence[str],
    personal_preset: str = PRESET,
) -> None:
    """Measures the missing rows; 'personal' of another preset is a row of its own."""
    from bench.federation import ablations, scaling  # they need Flower, an extra

    rows: dict[str, Callable[[FederationFixture], Figures]] = {
        "overhead": scaling.measure_overhead,
        "payload": scaling.measure_payload,
        "scaling": scaling.measure_scaling,
        "poison": ablations.measure_poisoning,
        "batch_norm": ablations.measure_batch_norm,
        "personal": partial(ablations.measure_personal_attention, preset=personal_preset),
    }
    for name in names:
        row = partial(rows[name], fixture)
        if name == "personal" and personal_preset != PRESET:
            name = f"personal: {personal_preset}"
        figures = store.row(name, row)
        if figures["met"] is False:
            say(f"{name}: missed: {figures['must']}")
