"""Flower's own engines give equal results; slow, as every message there starts a process.

The deployment is in `test_restart.py`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate

from train.federated.experiment import FederationError
from train.federated.runtime.superlink import (
    APP,
    SuperLink,
    find_free_port,
    run_processes,
    wait_for_port,
)
from train.federated.server.run_state import RESULT


def result(out: Path) -> dict:
    return json.loads((out / "mixture" / RESULT).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")
def test_the_bundle_holds_core_train_and_presets_and_nothing_else():
    _, warnings = load_and_validate(APP / "pyproject.toml")
    assert not warnings
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(APP))) as bundle:
        names = bundle.namelist()
    presets = {str(path.relative_to(APP)) for path in (APP / "train" / "conf").rglob("*.toml")}
    others = {n for n in names if not (n.startswith(("core/", "train/")) and n.endswith(".py"))}
    assert others == presets | {"pyproject.toml", ".info/CONTENT"}
    assert "train/federated/client/client_app.py" in names


def test_an_engine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FederationError, match="nowhere"):
        SuperLink("nowhere", tmp_path).run_flwr("ls", "nowhere")


def test_a_superlink_that_does_not_start_says_why(tmp_path):
    port = find_free_port()
    words = ["flower-superlink", "--ssl-certfile", "none.crt", "--port", str(port)]
    with (
        run_processes(
            {"superlink": words}, SuperLink("x", tmp_path).environment, tmp_path
        ) as started,
        pytest.raises(FederationError, match=f"port {port}"),
    ):
        wait_for_port(port, started["superlink"], tmp_path / "superlink.log")
    assert started["superlink"].poll() is not None


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra 'simulation' is not installed"
)
def test_a_simulation_gets_where_the_process_gets(preset, federate, tmp_path):
    path = preset("num_rounds = 1", clients=2)
    assert federate(path, "here") == 0
    assert federate(path, "there", "--runtime", "simulation") == 0
    here, there = (result(tmp_path / out)["rounds"][0] for out in ("here", "there"))
    assert there["trained"] == [0, 1] and not there["failures"]
    assert there["loss"] == pytest.approx(here["loss"], abs=1e-3)
    clean = [r["summary"]["clean"]["mean"] for r in (here, there)]
    assert abs(clean[0] - clean[1]) <= 0.01
