"""Export of weights from the hospitals' state folders: `python -m train export`.

Runs where the folders are, one hospital after another, without a server. Each hospital calibrates
on its own scans: temperatures and operating points, the detector's fusion, tau. The certified
classifier is the same at all hospitals and is added where they have trained it. With --merge-norm
a share of a hospital's normalisation statistics is that of all hospitals together, in which each
counts alike; the hospital that reads by default (--default, or the first) reads scans from
elsewhere and takes those of all. With --start, phases that were not trained further are those of
the weights that the federation started from. With --recalibrate, exported weights are calibrated
again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from core import checkpoint
from core.checkpoint import WeightsError
from core.pipeline import MedFedPure
from core.weights import PARTS, save_part, system_file_name
from train.config import PresetError, list_presets
from train.data.corpus import PROTOCOLS, Corpus, load_corpus
from train.data.errors import DataError
from train.data.partition import select_client_corpus
from train.data.sources import find_data_root
from train.federated.client.batch_norm import merge_statistics, select_statistics
from train.federated.client.hospital import Hospital
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment, read_experiment
from train.federated.hospital_weights import save_hospital, save_shared
from train.federated.kept_parts import KeptParts
from train.federated.norms import Norms, read_norms, read_statistics
from train.federated.recalibrate import calibrate_own, recalibrate
from train.federated.shared_parameters import is_statistic
from train.federated.state_file import StateError
from train.federated.warm_start import load_personal_start
from train.phases import interval
from train.progress import Progress
from train.provenance import find_commit
from train.recipes import FILES, list_phases


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        0 on success, 2 with one sentence if input or disk are at fault, 130 when stopped.
    """
    parser = _build_parser()
    args = parser.parse_args(argv)
    for name in ("certified", "start"):
        if getattr(args, name) and not args.state:
            parser.error(f"--{name.replace('_', '-')} needs --state")
    has_share = args.merge_norm is not None
    if args.certified and (has_share or args.start or args.default is not None):
        parser.error("--certified adds one file: --merge-norm, --start and --default do not apply")
    if has_share and (args.client or args.whole):
        parser.error("--merge-norm is for all hospitals, each with its own scans")
    if has_share and not 0 <= args.merge_norm <= 1:
        parser.error(f"--merge-norm must be in [0, 1], got {args.merge_norm:g}")
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        root = args.data or find_data_root()
        if root is None:
            raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
        experiment = read_experiment(args.preset, args.protocol, args.seed)
        corpus = load_corpus(args.protocol, root, args.cache)
        clients = args.client or range(experiment.config.partition.num_clients)
        if args.recalibrate:
            recalibrate(
                experiment, corpus, args.client, args.recalibrate, args.out,
                whole=args.whole, merge_norm=args.merge_norm, default=args.default,
            )  # fmt: skip
        elif args.certified:
            add_certified(experiment, corpus, clients[0], args.state, args.out)
        else:
            export(
                experiment, corpus, clients, args.state, args.out,
                whole=args.whole, merge_norm=args.merge_norm, start=args.start,
                default=args.default,
            )  # fmt: skip
    except (DataError, PresetError, StateError, WeightsError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command starts again with the first hospital", file=sys.stderr)
        return 130
    print(f"written to {args.out}", file=sys.stderr)
    return 0


def export(
    experiment: Experiment,
    corpus: Corpus,
    clients: range | list[int],
    states: Path,
    out: Path,
    *,
    whole: bool = False,
    merge_norm: float | None = None,
    start: Path | None = None,
    default: int | None = None,
) -> None:
    """Write the clients' shared parts once, and client c's personal tensors as hospital c + 1.

    A share `merge_norm` of the normalisation statistics is that of all clients together, at
    hospital `default` all of them. That one reads where none is named; without it that stays as it
    is in `out`. Phases that the clients have not begun are those of the weights in `start`.

    Raises:
        StateError: a client has not finished a phase, or with `start` one that it began.
        ValueError: two clients differ in a shared tensor, there is no hospital `default`, or `out`
            holds other hospitals whose statistics are stored elsewhere.
        WeightsError: `start` holds weights of another split, network or federation.
    """
    listed = _read_listed(out)
    if default is None:
        default = checkpoint.read_default(out) if listed else None
    elif default - 1 not in clients and system_file_name(default) not in listed:
        raise ValueError(f"there is no hospital {default} that could read by default")
    if start and start.resolve() == out.resolve():
        raise ValueError(f"{out} holds the weights to start from: name another --out")
    kept = KeptParts(start, experiment, clients, states, corpus.split_sha256)
    norms = Norms({}, 0.0)
    if merge_norm is not None:
        norms = read_norms(experiment, states, kept.names, merge_norm, (default or 1) - 1)
    same = norms.list_shared()
    shared = {f: n | same.get(f, set()) for f, n in _list_shared(experiment).items()} | kept.names
    written = {system_file_name(client + 1) for client in clients}
    if {n for n in listed if n.startswith("hospital-")} - written and any(
        set(checkpoint.load(out / file).state_dict) != names for file, names in shared.items()
    ):
        raise ValueError(f"{out} was written with another --merge-norm: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    log = Progress("export", out / "log.jsonl")
    certified = _find_certified(experiment, states, clients[0], log)
    if kept.names:
        log.report(f"kept from {start}: {', '.join(kept.names)}")
    for client in clients:
        own = corpus if whole else select_client_corpus(corpus, experiment.config.partition, client)
        before = load_personal_start(experiment, start, client) if start else None
        hospital = Hospital(experiment, own, client, states, start=before)
        log.report(f"hospital {client + 1} calibrates on its own {len(own.train)} scans")
        system = hospital.build_system()
        norms.apply(system, client)
        _round_shared(system, shared)  # calibrated as it will be stored
        calibrate_own(system, hospital.experiment, hospital.corpus, hospital.client, log)
        if client == clients[0]:
            save_shared(
                system, out, corpus.split_sha256, lambda file, n: n not in shared.get(file, {n})
            )
            extra = set()
            if certified is not None:
                extra = {_save_certified(certified, experiment, corpus, out)}
        save_hospital(system, out, client + 1, corpus.split_sha256)
        names = {*FILES.values(), *extra, *_read_listed(out), system_file_name(client + 1)}
        _write_manifest(out, names, experiment, corpus)
        kept.copy(out, extra)
        if default is not None:
            checkpoint.write_default(out, default)


def add_certified(
    experiment: Experiment, corpus: Corpus, client: int, states: Path, out: Path
) -> None:
    """Add the certified classifier of all clients to the weights in `out`.

    Raises:
        StateError: a client has not finished it, or the clients do not share it.
        WeightsError: the weights in `out` are of another split.
    """
    if (out / checkpoint.MANIFEST).is_file():
        splits = {info.split_sha256 for info in checkpoint.read_manifest(out).values()}
        if not splits <= {corpus.split_sha256}:
            raise WeightsError(f"The weights in {out} were trained on another split.")
    model = _build_certified(experiment, states, client)
    file = _save_certified(model, experiment, corpus, out)
    _write_manifest(out, {file}, experiment, corpus, keep=True)


def _find_certified(
    experiment: Experiment, states: Path, client: int, log: Progress
) -> nn.Module | None:
    """Return the certified classifier if it was trained; report why it cannot be exported."""
    if not ClientState(states, experiment, client).has_finished(interval.PHASE.name):
        return None
    try:
        return _build_certified(experiment, states, client)
    except StateError as error:
        log.report(f"without the certified classifier, which needs all state folders: {error}")
        return None


def _build_certified(experiment: Experiment, states: Path, client: int) -> nn.Module:
    """Build the certified classifier: one for all, with the merged statistics of the clients."""
    own = replace(experiment, phase=interval.PHASE.name)
    model = own.build_model()
    personal = own.select_personal(model)
    if not all(is_statistic(name) for name in personal):
        raise StateError(
            f"with share {own.config.share!r} and batch_norm {own.config.batch_norm!r} the clients "
            "have no common certified classifier"
        )
    model.load_state_dict(ClientState(states, own, client).read_finished(own))
    if select_statistics(personal):
        statistics = merge_statistics(read_statistics(own, states))
        counters = {name: torch.zeros_like(tensor) for name, tensor in personal.items()}
        model.load_state_dict({**counters, **statistics}, strict=False)
    return model


def _save_certified(model: nn.Module, experiment: Experiment, corpus: Corpus, out: Path) -> str:
    step = interval.PHASE
    save_part(model, out, step.file, step.stored_shape(experiment.preset), corpus.split_sha256)
    return step.file


def _write_manifest(
    out: Path, names: set[str], experiment: Experiment, corpus: Corpus, *, keep: bool = False
) -> None:
    checkpoint.write_manifest(
        out, names, preset=experiment.preset.name, protocol=corpus.protocol,
        commit=find_commit(), keep=keep,
    )  # fmt: skip


def _read_listed(out: Path) -> set[str]:
    """Return the files of the folder's manifest, if its shared parts are intact."""
    if not (out / checkpoint.MANIFEST).is_file():
        return set()
    listed = set(checkpoint.read_manifest(out))
    try:
        for file in FILES.values():
            checkpoint.load_verified(file, out)
    except WeightsError:
        return set()
    return listed


def _list_shared(experiment: Experiment) -> dict[str, set[str]]:
    """Return the names of the shared tensors by file: these are equal at every hospital."""
    phases = [replace(experiment, phase=phase) for phase in list_phases(experiment.preset)]
    return {FILES[e.phase]: set(e.select_shared(e.build_model())) for e in phases}


def _round_shared(system: MedFedPure, shared: Mapping[str, Container[str]]) -> None:
    """Round the shared tensors of each file to the half precision that they are stored in."""
    for file, place in PARTS.items():
        for name, tensor in system.get_submodule(place).state_dict().items():
            if name in shared.get(file, {name}):
                tensor.copy_(checkpoint.halve(name, tensor))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train export",
        description="Write weights for core.load(OUT, hospital=N) from hospitals' state folders.",
    )
    parser.add_argument("--preset", default="sites", metavar="NAME", help=", ".join(list_presets()))
    parser.add_argument("--protocol", default="patients", choices=PROTOCOLS)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--state", type=Path, metavar="DIR", help="the hospitals' state folder")
    source.add_argument(
        "--recalibrate",
        type=Path,
        metavar="DIR",
        help="exported weights: recalibrates them into OUT, trains nothing",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="weights folder")
    parser.add_argument(
        "--client",
        type=int,
        action="append",
        metavar="N",
        help="a client's number, from 0; repeat for several (default: all)",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="weights that the federation started from: their parts where a phase was not trained",
    )
    parser.add_argument(
        "--whole", action="store_true", help="all scans in the data folder are the client's own"
    )
    parser.add_argument(
        "--certified",
        action="store_true",
        help="only adds the certified classifier to the weights in OUT, without calibration",
    )
    parser.add_argument(
        "--merge-norm",
        type=float,
        metavar="SHARE",
        help="share of all hospitals together, each alike, in a hospital's normalisation "
        "statistics: 0 its own, 1 the same for all, which the hospital that reads by default has; "
        "with --recalibrate they are measured anew",
    )
    parser.add_argument(
        "--default",
        type=int,
        metavar="N",
        help="hospital that reads where none is named, from 1 (default: the first)",
    )
    parser.add_argument("--data", type=Path, help="data folder (default: MEDFEDPURE_DATA)")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="default: .cache")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads")
    return parser
