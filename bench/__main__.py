"""`python -m bench COMMAND`: checks the input, opens the result file, hands over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.app import latency, load_test
from bench.app.server import StartError, measure_app
from bench.components import (
    autoencoder,
    certificate,
    detector,
    explanations,
    out_of_distribution,
    purifier,
)
from bench.components.lesions import masks_for
from bench.data import Fold, load_fold
from bench.federation import old_trainings
from bench.options import parser, root_of, settings_of
from bench.parallel import ParallelBatches
from bench.progress import say
from bench.provenance import ProvenanceError, machine_facts, weights_facts
from bench.report import write
from bench.result_file import ResultFile, ResultFileError
from bench.robustness import loso, robustness, run
from bench.robustness.attacks import LADDER
from bench.robustness.budgets import BUDGETS, COMMITTED
from bench.robustness.old_systems import systems_named
from bench.robustness.rows import rows_named
from bench.robustness.systems import tensors_key
from core import WeightsError, load, smoothing
from core.checkpoint import WEIGHTS
from core.checkpoint import read_manifest as read_weights
from core.pipeline import MedFedPure
from train.config import PresetError
from train.data.cifar import read_cifar
from train.data.sources import DataError
from train.data.split import read_manifest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 2 with a sentence where the input is at fault."""
    args = parser().parse_args(argv)
    try:
        if args.command == "report":
            return write.run(args.results, args.pages or write.PAGES, args.check)
        if args.command == "demo":
            return _demo(args)
        torch.set_num_threads(args.threads or torch.get_num_threads())
        if args.command in old_trainings.COMMANDS:
            old_trainings.COMMANDS[args.command](args)
        else:
            _loso(args) if args.command == "loso" else _single(args)
    except (
        DataError,
        PresetError,
        ProvenanceError,
        StartError,
        ResultFileError,
        WeightsError,
        ValueError,
    ) as error:
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
    hospital = getattr(args, "hospital", None)
    pipeline = load(args.weights, hospital=hospital).to(_device(args))
    fold, of = getattr(args, "fold", "test"), getattr(args, "budget", None)
    identity: dict[str, Any] = {"protocol": args.protocol, "manifest_sha256": manifest.sha256}
    others: list[MedFedPure] = []
    if of:  # the ladder's rows know of which tensors they are; those that lend gradients
        budget = BUDGETS[of]
        lenders = _others(pipeline)[: budget.others]
        others = [load(args.weights, hospital=h).to(_device(args)) for h in lenders]
        lent = [pipeline.plain, *(other.classifier for other in others)]
        identity["lent"] = [tensors_key(part) for part in lent]
        weights |= {"sha256": hashes}
    elif args.command == "certify":  # a reader beside the system
        identity["weights"] = {smoothing.FILE: hashes.get(smoothing.FILE)}
    else:
        identity["weights"] = hashes
    store = _store(place_of(args), args, identity, {"weights_facts": weights}, pipeline)
    test = _fold(args, args.protocol, fold, args.limit)
    if of:
        run.run(
            store,
            pipeline,
            others,
            test,
            args.rows or LADDER,
            args.systems,
            budget,
            eps=args.attack_eps,
            lanes=ParallelBatches(pipeline.device, args.batch_size, args.workers),
            forget_changed=args.forget_changed,
        )
    elif args.command == "robustness":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        robustness.run(
            store, pipeline, test, validation,
            rows_named(args.rows or ["clean", "A0"], args.attack_eps), systems_named(args.systems),
            eps=args.attack_eps, batch_size=args.batch_size,
        )  # fmt: skip
    elif args.command == "detection":
        hospitals = {
            h: partial(load, args.weights, device=_device(args), hospital=h)
            for h in pipeline.info.get("hospitals", [])
        }
        detector.run(store, pipeline, test, args.batch_size, hospitals)
    elif args.command == "purifier":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        purifier.run(store, pipeline, test, validation, args.batch_size)
    elif args.command == "looks":
        explanations.run(store, pipeline, test, masks_for(test, root_of(args)))
    elif args.command == "mae":
        validation = _fold(args, args.protocol, "val", args.val_limit)
        autoencoder.run(store, pipeline, test, validation, args.batch_size)
    elif args.command == "novelty":
        photographs = read_cifar(root_of(args), args.cache).test
        out_of_distribution.run(store, pipeline, test, photographs, batch_size=args.batch_size)
    elif args.command == "certify":
        certificate.run(
            store, smoothing.load(args.weights, pipeline.device), test,
            eps=args.eps, n0=args.choose, n=args.noises, alpha=args.alpha,
        )  # fmt: skip
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


def place_of(args: argparse.Namespace) -> Path:
    """The result file: `--out`, or named after command or ladder, budget and protocol."""
    of = getattr(args, "budget", None)
    stem = ("ladder" if of == COMMITTED else f"ladder-{of}") if of else args.command
    folder = "results" if getattr(args, "fold", "test") == "test" else "runs"
    return args.out or Path(folder) / f"{stem}-{args.protocol}.json"


def _others(pipeline: MedFedPure) -> list[int]:
    """Numbers of the hospitals beside the one whose system this is."""
    own = pipeline.info.get("hospital")
    return [h for h in pipeline.info.get("hospitals", []) if h != own]


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
    store = ResultFile(
        args.out, "demo", {"weights": hashes, "settings": settings, "timed_on": machine},
        {"machine": machine}, args.fresh,
    )  # fmt: skip
    load_test.run(store, args.visitors, args.seconds, args.shots)
    store.write()
    say(f"written to {store.path}")
    return 0


def _store(
    out: Path,
    args: argparse.Namespace,
    identity: dict[str, Any],
    facts: dict[str, Any],
    pipeline: MedFedPure,
) -> ResultFile:
    settings = settings_of(args)
    machine = machine_facts(pipeline.device)
    if args.command == "latency":  # here the machine decides the figures
        identity = {**identity, "timed_on": machine}
    system = {
        "score": pipeline.config.detector.score,
        "policy": pipeline.config.purifier.policy,
        "info": {k: v for k, v in pipeline.info.items() if isinstance(v, str | int | float)},
    }
    seeds = "of a scan: its position in the manifest; of everything else: 0"
    return ResultFile(
        out,
        args.command,
        {**identity, "settings": settings},
        {**facts, "system": system, "seeds": seeds, "machine": machine},
        args.fresh,
    )


def _fold(args: argparse.Namespace, protocol: str, name: str, limit: int | None) -> Fold:
    return load_fold(
        protocol, name, root_of(args), limit=limit, cache=args.cache, manifests=args.manifests
    )


def _device(args: argparse.Namespace) -> torch.device:
    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(args.device)


if __name__ == "__main__":
    sys.exit(main())
