"""The runtimes: the same two apps in this process, or on an engine of Flower's."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from train.federated.client import client_app
from train.federated.experiment import read_experiment
from train.federated.runtime import loopback, superlink
from train.federated.runtime.in_process import RUN_ID, InProcessGrid
from train.federated.server import server_app
from train.federated.server.run_state import RESULT
from train.federated.server.server_app import FederationError

Settings = Mapping[str, Any]


def in_process(settings: Settings, app: ClientAppCallable = client_app.app) -> list[int]:
    """All clients one after another in this process: deterministic, no Ray, no sockets.

    `app` answers each message: another than the clients' own can listen, or fail as a client may.

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
    grid = InProcessGrid(app, settings, nodes)
    context = Context(RUN_ID, 0, {}, RecordDict(), dict(settings))
    server_app.app(grid, context)
    return skipped(Path(settings["out"]))


def skipped(out: Path) -> list[int]:
    """The rounds of a finished run that were not aggregated."""
    facts = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return [entry["round"] for entry in facts["rounds"] if entry["skipped"]]


def simulation(settings: Settings) -> list[int]:
    """Flower's simulation engine (Ray) with a SuperLink, a home and a port of its own.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: Ray is missing, or the run did not end well.
    """
    if importlib.util.find_spec("ray") is None:
        raise FederationError("simulation needs Ray: pip install '.[simulation]'")
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    logs, port = Path(settings["out"]) / "logs", superlink.free_port()
    with tempfile.TemporaryDirectory() as folder:
        superlink.write_config(Path(folder), "simulation", f"127.0.0.1:{port}", None)
        link = superlink.Link("simulation", Path(folder))
        words = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
        words += ["--disable-runtime-dependency-installation", "--port", str(port)]
        with superlink.processes({"superlink": words}, link.environment, logs) as started:
            superlink.wait_for_port(port, started["superlink"], logs / "superlink.log")
            count = experiment.config.partition.num_clients
            cpus = max(1, os.cpu_count() or 1)
            federation = f"num-supernodes={count} client-resources-num-cpus=1"
            run = {k: v for k, v in settings.items() if k != "superlink"}
            link.run(run, f"{federation} init-args-num-cpus={cpus}")
    return skipped(Path(settings["out"]))


def deployment(settings: Settings) -> list[int]:
    """A SuperLink with SuperNodes: the one named in Flower's config, or all of it on loopback.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: the run did not end well.
    """
    name = settings["superlink"]
    if name == loopback.NAME:
        loopback.run(settings)
        return skipped(Path(settings["out"]))
    superlink.Link(name).run({key: settings[key] for key in superlink.RUN_KEYS})
    here = (Path(settings["out"]) / RESULT).is_file()  # else with the SuperLink
    return skipped(Path(settings["out"])) if here else []


RUN: dict[str, Callable[[Settings], list[int]]] = {
    "in-process": in_process,
    "simulation": simulation,
    "deployment": deployment,
}
