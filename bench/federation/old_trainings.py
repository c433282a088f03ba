"""The commands that train federations or compare them: what they need is opened, and handed over.

Flower is an extra: what needs it is imported where it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bench.federation.methods import TABLES, methods_named
from bench.options import root_of, settings_of
from bench.progress import say
from bench.provenance import key_of, machine_facts, weights_facts
from bench.result_file import ResultFile
from core import load
from core.weights import load_all
from train.config import read_preset
from train.data.corpus import load_corpus
from train.data.split import read_manifest


def _tables(args: argparse.Namespace) -> None:
    from bench.federation import comparison
    from bench.federation.trainings import Places

    name = f"{args.table}-{args.dataset}"
    if name not in TABLES:
        raise ValueError("Table I has CIFAR-10 alone: --dataset cifar10")
    table, methods = TABLES[name], methods_named(args.methods)
    places = Places(root_of(args), args.cache, args.manifests, args.runs)
    corpus = load_corpus(table.protocol, places.data, places.cache, places.manifests)
    out = args.out or Path("results") / f"table-{name}-{args.setting}.json"
    settings = settings_of(args)
    store = ResultFile(
        out, "tables",
        {"split_sha256": corpus.split_sha256, "settings": settings},
        {"dataset": corpus.protocol, "machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    comparison.run(
        store, table, args.setting, methods, corpus, places, seed=args.seed, limit=args.limit,
        lite_limit=args.lite_limit, evasion_limit=args.evasion_limit,
    )  # fmt: skip
    say(f"written to {store.path}")


def _pooled(args: argparse.Namespace) -> None:
    from bench.clients import test_scans
    from bench.federation import pooled
    from train.federated.experiment import read_experiment

    manifest, root = read_manifest(args.protocol, args.manifests), root_of(args)
    facts = {
        name: weights_facts(folder, manifest)
        for name, folder in (("federated", args.weights), ("pooled", args.pooled))
    }
    own = load_all(args.weights)
    experiment = read_experiment(args.preset, args.protocol, 0)
    if len(own) != experiment.config.partition.num_clients:
        raise ValueError(f"{args.weights} holds {len(own)} systems, not those of {args.preset!r}")
    corpus = load_corpus(args.protocol, root, args.cache, args.manifests)
    scans = test_scans(
        experiment, corpus, root, args.cache, limit=args.limit, manifests=args.manifests
    )
    hashes = {name: f.pop("sha256") for name, f in facts.items()}
    settings = {"limit": args.limit, "eps": args.attack_eps, "preset": args.preset}
    machine = machine_facts(torch.device("cpu"))
    store = ResultFile(
        args.out or Path("results") / f"pooled-{args.protocol}.json", "pooled",
        {"manifest_sha256": manifest.sha256, "weights": hashes, "settings": settings},
        {"weights_facts": facts, "machine": machine}, args.fresh,
    )  # fmt: skip
    pooled.run(store, list(own.values()), load(args.pooled), scans, args.attack_eps)
    store.write()
    say(f"written to {store.path}")


def _federation(args: argparse.Namespace) -> None:
    from bench.federation import run
    from bench.federation.federation_ground import LEARNING, PRESET, Ground
    from bench.federation.trainings import Places, decisive

    names = run.rows_named(args.rows)
    places = Places(root_of(args), args.cache, args.manifests, args.runs)
    manifests = {p: read_manifest(p, args.manifests).sha256 for p in (args.protocol, LEARNING)}
    settings = settings_of(args)
    store = ResultFile(
        args.out or Path("results") / "federation.json", "federation",
        {
            "manifest_sha256": manifests, "settings": settings,
            "preset": key_of(decisive(read_preset(PRESET))),
        },
        {"machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    ground = Ground(places, args.protocol, seed=args.seed)
    run.run(store, ground, names, args.personal_preset)
    say(f"written to {store.path}")


COMMANDS = {"tables": _tables, "pooled": _pooled, "federation": _federation}
