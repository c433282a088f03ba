"""`python -m bench COMMAND`: checks the input, opens the result file, hands over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import demo, detection, latency, loso, mae, novelty, purifier, report, robustness
from bench.fold import Fold, load_fold
from bench.lesions import masks_for
from bench.methods import METHODS, TABLES, methods_named, preset_of
from bench.options import parser
from bench.progress import say
from bench.provenance import ProvenanceError, key_of, machine_facts, weights_facts
from bench.rows import rows_named
from bench.startup import StartError, measure_app
from bench.store import Store, StoreError
from bench.systems import systems_named
from core import WeightsError, load
from core.checkpoint import WEIGHTS
from core.checkpoint import read_manifest as read_weights
from core.pipeline import MedFedPure
from train.cifar import read_cifar
from train.config import PresetError, read_preset
from train.corpus import load_corpus
from train.data import DataError, default_root
from train.split import read_manifest

# options that decide no figure: rows computed under others may stand in the same file
INDIFFERENT = {
    "command", "weights", "data", "batch_size", "threads", "device", "cache", "manifests", "out",
    "fresh", "rows", "no_app", "weights_leak_free", "weights_second_source",
    "methods", "runs", "personal_preset",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 2 with a sentence where the input is at fault."""
    args = parser().parse_args(argv)
    try:
        if args.command == "report":
            return report.run(args.results, args.readme, args.check)
        if args.command == "demo":
            return _demo(args)
        torch.set_num_threads(args.threads or torch.get_num_threads())
        if args.command == "tables":
            return _tables(args)
        if args.command == "federation":
            return _federation(args)
        _loso(args) if args.command == "loso" else _single(args)
    except (
        DataError, PresetError, ProvenanceError, StartError, StoreError, WeightsError, ValueError
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on after the last finished row", file=sys.stderr)
        return 130
    return 0


def _single(args: argparse.Namespace) -> None:
    manifest = read_manifest(args.protocol, args.manifests)
    weights = weights_facts(args.weights, manifest)
    hashes = weights.pop("sha256")
    pipeline = load(args.weights).to(_device(args))
    out = args.out or Path("results") / f"{args.command}-{args.protocol}.json"
    identity = {
        "protocol": args.protocol,
        "manifest_sha256": manifest.sha256,
        "weights": hashes,
    }
    store = _store(out, args, identity, {"weights_facts": weights}, pipeline)
    test = _fold(args, args.protocol, "test", args.limit)
    if args.command == "robustness":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        robustness.run(
            store, pipeline, test, validation,
            rows_named(args.rows, args.attack_eps), systems_named(args.systems),
            eps=args.attack_eps, lite_limit=args.lite_limit, batch_size=args.batch_size,
        )  # fmt: skip
    elif args.command == "detection":
        detection.run(store, pipeline, test, args.batch_size)
    elif args.command == "purifier":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        masks = masks_for(test, _root(args))
        purifier.run(store, pipeline, test, validation, masks, args.batch_size)
    elif args.command == "mae":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        mae.run(store, pipeline, test, validation, args.batch_size)
    elif args.command == "novelty":
        photographs = read_cifar(_root(args), args.cache).test
        novelty.run(store, pipeline, test, photographs, batch_size=args.batch_size)
    else:
        latency.run(
            store, pipeline, test,
            repeats=args.repeats, peer=args.peer, peer_repeats=args.peer_repeats,
        )  # fmt: skip
        if not args.no_app:
            files = latency.attacked_files(pipeline, test, 5)
            store.row("app", lambda: measure_app(files))
    store.write()
    say(f"written to {store.path}")


def _loso(args: argparse.Namespace) -> None:
    folders = {"leak-free": args.weights_leak_free, "second-source": args.weights_second_source}
    manifests = {p: read_manifest(p, args.manifests) for p in folders}
    facts = {p: weights_facts(folder, manifests[p]) for p, folder in folders.items()}
    identity = {
        "manifest_sha256": {p: m.sha256 for p, m in manifests.items()},
        "weights": {p: f["sha256"] for p, f in facts.items()},
    }
    pipelines = {p: load(folder).to(_device(args)) for p, folder in folders.items()}
    out = args.out or Path("results") / "loso.json"
    store = _store(out, args, identity, {"weights_facts": facts}, pipelines["leak-free"])
    for trained_on, tested_on in loso.WAYS.items():
        loso.run(
            store, trained_on, pipelines[trained_on],
            _fold(args, tested_on, "test", args.limit), args.rows, systems_named(args.systems),
            eps=args.attack_eps, batch_size=args.batch_size,
        )  # fmt: skip
    store.write()
    say(f"written to {store.path}")


def _demo(args: argparse.Namespace) -> int:
    hashes = {name: info.sha256 for name, info in read_weights(WEIGHTS).items()}
    machine = machine_facts(torch.device("cpu"))
    settings = {"visitors": args.visitors, "seconds": args.seconds}
    store = Store(
        args.out, "demo", {"weights": hashes, "settings": settings, "timed_on": machine},
        {"machine": machine}, args.fresh,
    )  # fmt: skip
    demo.run(store, args.visitors, args.seconds, args.shots)
    store.write()
    say(f"written to {store.path}")
    return 0


def _tables(args: argparse.Namespace) -> int:
    from bench import baselines  # Flower is an extra
    from bench.federation_runs import Places

    name = f"{args.table}-{args.dataset}"
    if name not in TABLES:
        raise ValueError("Table I has CIFAR-10 alone: --dataset cifar10")
    table, methods = TABLES[name], methods_named(args.methods)
    places = Places(_root(args), args.cache, args.manifests, args.runs)
    corpus = load_corpus(table.protocol, places.data, places.cache, places.manifests)
    out = args.out or Path("results") / f"table-{name}-{args.setting}.json"
    settings = {k: v for k, v in sorted(vars(args).items()) if k not in INDIFFERENT}
    presets = {m.name: asdict(read_preset(preset_of(table, args.setting, m))) for m in METHODS}
    store = Store(
        out, "tables",
        {"split_sha256": corpus.split_sha256, "settings": settings, "presets": key_of(presets)},
        {"dataset": corpus.protocol, "machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    baselines.run(
        store, table, args.setting, methods, corpus, places, seed=args.seed, limit=args.limit,
        lite_limit=args.lite_limit, evasion_limit=args.evasion_limit,
    )  # fmt: skip
    say(f"written to {store.path}")
    return 0


def _federation(args: argparse.Namespace) -> int:
    from bench import federation  # Flower is an extra
    from bench.federation_ground import LEARNING, PRESET, Ground
    from bench.federation_runs import Places

    names = federation.rows_named(args.rows)
    places = Places(_root(args), args.cache, args.manifests, args.runs)
    manifests = {p: read_manifest(p, args.manifests).sha256 for p in (args.protocol, LEARNING)}
    settings = {k: v for k, v in sorted(vars(args).items()) if k not in INDIFFERENT}
    store = Store(
        args.out or Path("results") / "federation.json", "federation",
        {
            "manifest_sha256": manifests, "settings": settings,
            "preset": key_of(asdict(read_preset(PRESET))),
        },
        {"machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    ground = Ground(places, args.protocol, seed=args.seed)
    federation.run(store, ground, names, args.personal_preset)
    say(f"written to {store.path}")
    return 0


def _store(
    out: Path,
    args: argparse.Namespace,
    identity: dict[str, Any],
    facts: dict[str, Any],
    pipeline: MedFedPure,
) -> Store:
    settings = {k: v for k, v in sorted(vars(args).items()) if k not in INDIFFERENT}
    machine = machine_facts(pipeline.device)
    if args.command == "latency":  # here the machine decides the figures
        identity = {**identity, "timed_on": machine}
    system = {
        "score": pipeline.config.detector.score,
        "policy": pipeline.config.purifier.policy,
        "info": {k: v for k, v in pipeline.info.items() if isinstance(v, str | int | float)},
    }
    seeds = "of a scan: its position in the manifest; of everything else: 0"
    return Store(
        out,
        args.command,
        {**identity, "settings": settings},
        {**facts, "system": system, "seeds": seeds, "machine": machine},
        args.fresh,
    )


def _fold(args: argparse.Namespace, protocol: str, name: str, limit: int | None) -> Fold:
    return load_fold(
        protocol, name, _root(args), limit=limit, cache=args.cache, manifests=args.manifests
    )


def _root(args: argparse.Namespace) -> Path:
    root = args.data or default_root()
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return Path(root)


def _device(args: argparse.Namespace) -> torch.device:
    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(args.device)


if __name__ == "__main__":
    sys.exit(main())
