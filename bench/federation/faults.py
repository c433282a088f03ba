"""Hospitals that fail, come late, or a server that is stopped: what a short run makes of each."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from flwr.clientapp.typing import ClientAppCallable

from bench.federation.bad_clients import ChangeFn, Tensors, altered, down, misshapen, not_finite
from bench.federation.federation_ground import SHORT, Ground, differing, digests
from bench.result_file import Figures
from train.federated.client import client_app
from train.federated.runtime import run

WHO, WHEN = 1, 2  # the client that fails, and the round in which it does
LATE = f"late_clients = [{WHO}]\njoin_round = {WHEN}\n{SHORT}"
# what the client does, and what the recorded reason must hold
FAULTS: dict[str, tuple[ChangeFn, str]] = {
    "raises mid-round": (down, "RuntimeError: the power went"),
    "returns NaN": (not_finite, "numbers that are not finite"),
    "returns wrong shapes": (misshapen, "of shape (1,)"),
}


class Stop(KeyboardInterrupt):
    """Ctrl-C, but nobody's own."""


def faults(ground: Ground) -> Figures:
    """Each fault in a short run of three hospitals: who failed, why, and who went on."""
    found = {name: failing(ground, *fault) for name, fault in FAULTS.items()}
    found["joins late"] = _late(ground)
    found["server stopped, resumed"] = _stopped(ground)
    return {
        "meaning": f"three hospitals, two rounds; client {WHO} fails in round {WHEN}, or joins in "
        "it, or the server is stopped in it",
        "must": "the run ends, its record says who and why, the others go on; a resumed run "
        "leaves the bytes of one that was never stopped",
        "met": all(figures["met"] for figures in found.values()),
        "faults": found,
    }


def failing(ground: Ground, change: ChangeFn, reason: str) -> Figures:
    """A run in which one client's answer is changed; 'met' where that is told, and nothing else."""
    rounds = _rounds(ground, SHORT, altered(change, WHO, WHEN))
    others, failures = [c for c in rounds[0]["trained"] if c != WHO], rounds[-1]["failures"]
    return {
        "met": len(rounds) == WHEN
        and rounds[-1]["trained"] == others
        and list(failures) == [str(WHO)]
        and reason in failures[str(WHO)],
        "failures": failures,
        "trained": [entry["trained"] for entry in rounds],
    }


def _late(ground: Ground) -> Figures:
    rounds = _rounds(ground, LATE, client_app.app)
    first, last = rounds[0]["trained"], rounds[-1]["trained"]
    return {
        "met": WHO in last and first == [c for c in last if c != WHO],
        "failures": {k: v for entry in rounds for k, v in entry["failures"].items()},
        "trained": [entry["trained"] for entry in rounds],
    }


def _stopped(ground: Ground) -> Figures:
    """A run that is stopped within its last round and goes on, beside one that is not."""

    def stop(_: Tensors, __: int) -> Tensors:
        raise Stop

    with tempfile.TemporaryDirectory() as folder:
        whole, own = (
            ground.under(Path(folder) / name).federation(changes=SHORT)
            for name in ("whole", "stopped")
        )
        whole.train()
        is_stopped = False
        try:
            own.train(run=partial(run.in_process, app=altered(stop, WHO, WHEN)))
        except Stop:
            is_stopped = True
        training = own.train()
        files, different = len(digests(whole.out)), differing(whole.out, own.out)
    return {
        "met": is_stopped and not different,
        "failures": {},
        "trained": [entry["trained"] for entry in training["rounds"]],
        "files": files,
        "different": different,
    }


def _rounds(ground: Ground, changes: str, app: ClientAppCallable) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        own = ground.under(Path(folder)).federation(changes=changes)
        rounds: list[dict[str, Any]] = own.train(run=partial(run.in_process, app=app))["rounds"]
    return rounds
