"""Runtimes of the two apps: this process, Flower's simulation, Flower's deployment."""

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
from train.federated.experiment import FederationError, read_experiment
from train.federated.runtime import loopback, superlink
from train.federated.runtime.in_process import RUN_ID, InProcessGrid
from train.federated.server import server_app
from train.federated.server.run_state import RESULT

Settings = Mapping[str, Any]


def run_in_process(settings: Settings, app: ClientAppCallable = client_app.app) -> list[int]:
    """Run all clients one after another in this process: deterministic, no Ray, no sockets.

    `app` answers each message; tests replace the client app to observe messages or to fail.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: the federation stopped early.
        ValueError: preset, data or the state to resume are invalid.
    """
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    count = experiment.config.partition.num_clients
    nodes = [{"partition-id": client, "num-partitions": count} for client in range(count)]
    client_app.clear_cache()
    grid = InProcessGrid(app, settings, nodes)
    context = Context(RUN_ID, 0, {}, RecordDict(), dict(settings))
    server_app.app(grid, context)
    return read_skipped(Path(settings["out"]))


def read_skipped(out: Path) -> list[int]:
    """Return the rounds of a finished run that were not aggregated."""
    facts = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return [entry["round"] for entry in facts["rounds"] if entry["skipped"]]


def run_simulation(settings: Settings) -> list[int]:
    """Run on Flower's simulation engine (Ray) with its own SuperLink, home folder and port.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: Ray is missing, or the run failed.
    """
    if importlib.util.find_spec("ray") is None:
        raise FederationError("simulation needs Ray: pip install '.[simulation]'")
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    logs, port = Path(settings["out"]) / "logs", superlink.find_free_port()
    with tempfile.TemporaryDirectory() as folder:
        superlink.write_config(Path(folder), "simulation", f"127.0.0.1:{port}", None)
        link = superlink.SuperLink("simulation", Path(folder))
        words = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
        words += ["--disable-runtime-dependency-installation", "--port", str(port)]
        with superlink.run_processes({"superlink": words}, link.environment, logs) as started:
            superlink.wait_for_port(port, started["superlink"], logs / "superlink.log")
            count = experiment.config.partition.num_clients
            cpus = max(1, os.cpu_count() or 1)
            federation = f"num-supernodes={count} client-resources-num-cpus=1"
            run = {k: v for k, v in settings.items() if k != "superlink"}
            link.run(run, f"{federation} init-args-num-cpus={cpus}")
    return read_skipped(Path(settings["out"]))


def run_deployment(settings: Settings) -> list[int]:
    """Run on the SuperLink named in Flower's config, or on a temporary one on loopback.

    Returns:
        The rounds that were skipped.

    Raises:
        FederationError: the run failed.
    """
    name = settings["superlink"]
    if name == loopback.NAME:
        loopback.run(settings)
        return read_skipped(Path(settings["out"]))
    superlink.SuperLink(name).run({key: settings[key] for key in superlink.RUN_KEYS})
    is_local = (Path(settings["out"]) / RESULT).is_file()  # otherwise beside the SuperLink
    return read_skipped(Path(settings["out"])) if is_local else []


RUNNERS: dict[str, Callable[[Settings], list[int]]] = {
    "in-process": run_in_process,
    "simulation": run_simulation,
    "deployment": run_deployment,
}
