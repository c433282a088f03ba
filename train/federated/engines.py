"""The runtimes: the same two apps in this process, or on an engine of Flower's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from train.federated import client_app, server_app
from train.federated.experiment import read_experiment
from train.federated.grid import RUN_ID, InProcessGrid

Settings = Mapping[str, Any]


def in_process(settings: Settings) -> list[int]:
    """All clients one after another in this process: deterministic, no Ray, no sockets.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: the federation broke off.
        ValueError: preset, data or what is to be resumed are wrong.
    """
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    count = experiment.config.partition.num_clients
    nodes = [{"partition-id": client, "num-partitions": count} for client in range(count)]
    client_app.forget()
    grid = InProcessGrid(client_app.app, settings, nodes)
    context = Context(RUN_ID, 0, {}, RecordDict(), dict(settings))
    server_app.app(grid, context)
    return skipped(Path(settings["out"]))


def skipped(out: Path) -> list[int]:
    """The rounds of a finished run that were not aggregated."""
    facts = json.loads((out / server_app.RESULT).read_text(encoding="utf-8"))
    return [entry["round"] for entry in facts["rounds"] if entry["skipped"]]


RUN: dict[str, Callable[[Settings], list[int]]] = {"in-process": in_process}
