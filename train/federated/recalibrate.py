"""Calibration of a hospital's system on its own scans, after training and again later."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from core import checkpoint
from core.checkpoint import MANIFEST, WeightsError, write_atomic
from core.pipeline import MedFedPure
from core.weights import PARTS, load, load_system_file, system_file_name
from train.calibration.calibrate import calibrate
from train.data.corpus import Corpus
from train.data.partition import select_client_corpus
from train.federated.experiment import Experiment
from train.federated.hospital_weights import save_hospital
from train.federated.norms import Norms, measure_norms
from train.federated.shared_parameters import is_statistic
from train.progress import Progress
from train.provenance import find_commit


def calibrate_own(
    system: MedFedPure, experiment: Experiment, corpus: Corpus, client: int, log: Progress
) -> None:
    """Calibrate client `client`'s system in place on its own scans, and record the result."""
    preset = experiment.preset
    figures = calibrate(system, corpus.train, corpus.val, preset.calibrate, log.report)
    system.info = {**_describe_origin(experiment, corpus), "validation": figures}
    log.write(hospital=client + 1, **figures)


def recalibrate(
    experiment: Experiment,
    corpus: Corpus,
    clients: list[int] | None,
    weights: Path,
    out: Path,
    *,
    whole: bool = False,
    merge_norm: float | None = None,
    default: int | None = None,
) -> None:
    """Write the hospitals' weights in `weights` to `out`, recalibrated on their own scans.

    By default all hospitals. With `merge_norm` all hospitals measure their normalisation statistics
    anew; that share of them is of all together, at the hospital that reads where none is named all
    of them. That is hospital `default`, or the one that the weights name.

    Raises:
        WeightsError: these are not weights of hospitals, or not of the experiment's preset, seed,
            partition and split, or there is no hospital `default`; or `out` holds other weights,
            or with `merge_norm` these.
    """
    if merge_norm is not None and out.resolve() == weights.resolve():
        raise WeightsError(f"{out} holds the weights to recalibrate: name another --out")
    if clients is None:
        clients = [number - 1 for number in load(weights, "cpu").info.get("hospitals", [])]
        if not clients:
            raise WeightsError(f"The weights in {weights} are not weights of hospitals.")
    if default is None:
        default = checkpoint.read_default(weights)
    elif system_file_name(default) not in checkpoint.read_manifest(weights):
        raise WeightsError(f"there is no hospital {default} that could read by default")
    wanted = {**_describe_origin(experiment, corpus), "split_sha256": corpus.split_sha256}
    for client in clients:  # check all before the first calibration, which takes minutes
        system_file = load_system_file(weights, client + 1)
        info = {**system_file.config["info"], "split_sha256": system_file.split_sha256}
        if differ := sorted(key for key in wanted if info.get(key) != wanted[key]):
            raise WeightsError(f"{system_file_name(client + 1)} has another {', '.join(differ)}.")
    norms = Norms({}, 0.0)
    if merge_norm is not None:
        norms = measure_norms(experiment, corpus, weights, merge_norm, (default or 1) - 1)
    _copy_shared(weights, out, norms)
    log, partition = Progress("recalibrate", out / "log.jsonl"), experiment.config.partition
    for client in clients:
        own = corpus if whole else select_client_corpus(corpus, partition, client)
        log.report(f"hospital {client + 1} calibrates on its own {len(own.train)} scans")
        system = load(weights, hospital=client + 1)
        norms.apply(system, client)
        if client == clients[0] and norms.own:
            _save_parts(system, norms, weights, out, experiment, corpus)
        calibrate_own(system, experiment, own, client, log)
        save_hospital(system, out, client + 1, corpus.split_sha256)
        checkpoint.write_manifest(
            out, [system_file_name(client + 1)], preset=experiment.preset.name,
            protocol=corpus.protocol, commit=find_commit(), keep=True,
        )  # fmt: skip
        if default is not None:
            checkpoint.write_default(out, default)


def _save_parts(
    system: MedFedPure,
    norms: Norms,
    weights: Path,
    out: Path,
    experiment: Experiment,
    corpus: Corpus,
) -> None:
    """Write the parts with new statistics, which the files hold where they are the same for all."""
    for file in norms.own:
        stored, same = checkpoint.load(weights / file), norms.list_shared().get(file, set())
        part = system.get_submodule(PARTS[file]).state_dict()
        names = {n for n in stored.state_dict if not is_statistic(n)} | same
        state = {n: part[n] for n in part if n in names}
        checkpoint.save(
            out / file, state, stored.config, split_sha256=stored.split_sha256, half=True
        )
    checkpoint.write_manifest(
        out, norms.own, preset=experiment.preset.name, protocol=corpus.protocol,
        commit=find_commit(), keep=True,
    )  # fmt: skip


def _copy_shared(weights: Path, out: Path, norms: Norms) -> None:
    """Copy the shared parts without new statistics, and the manifest, unless `out` has them."""
    files = checkpoint.read_manifest(weights)
    parts = {name for name in files if not name.startswith("hospital-")}
    shared = parts - set(norms.own)
    if (out / MANIFEST).is_file():
        existing = checkpoint.read_manifest(out)
        if (
            not parts <= set(existing)
            or any(existing[name].sha256 != files[name].sha256 for name in shared)
            or any(_differ(weights / name, out / name) for name in norms.own)
        ):
            raise WeightsError(f"{out} holds other weights: name another --out.")
        return
    for name in shared:
        checkpoint.load_verified(name, weights)
        write_atomic(out / name, (weights / name).read_bytes())
    write_atomic(out / MANIFEST, (weights / MANIFEST).read_bytes())


def _differ(first: Path, second: Path) -> bool:
    """Return whether two files of one part differ in more than statistics."""
    states = [
        {n: t for n, t in checkpoint.load(path).state_dict.items() if not is_statistic(n)}
        for path in (first, second)
    ]
    return states[0].keys() != states[1].keys() or any(
        not torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


def _describe_origin(experiment: Experiment, corpus: Corpus) -> dict[str, object]:
    return {
        "preset": experiment.preset.name,
        "protocol": corpus.protocol,
        "seed": experiment.seed,
        "federated": asdict(experiment.config.partition),
    }
