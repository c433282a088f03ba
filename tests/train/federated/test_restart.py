"""A deployment gives the results of one process, and a node that is killed joins it again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from train.federated.runtime import supernode
from train.federated.server.run_state import RESULT

CLIENT = 1
KEY = "--auth-supernode-private-key"


def find_process(client: int) -> int | None:
    """Find the process of a client's SuperNode."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended
        is_node = any(Path(word).name == "flower-supernode" for word in words[:2])
        if is_node and any(word.startswith(f"partition-id={client} ") for word in words):
            return int(folder.name)
    return None


def find_workers(node: int) -> set[int]:
    """Find the processes of a node's group that answer a message: one for each that it takes."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_app = b"flwr-clientapp" in (folder / "cmdline").read_bytes()
            if is_app and os.getpgid(int(folder.name)) == node:
                found.add(int(folder.name))
        except OSError:
            continue  # it has ended
    return found


def kill_and_start_again(log: Path, codes: list[int]) -> None:
    """Kill the node with its children as it trains in the second round, and start it again."""
    while not log.is_file() or not log.read_text():
        time.sleep(0.05)
    pid = find_process(CLIENT)
    assert pid
    before = find_workers(pid)  # that of the first round's last message may still be there
    while not find_workers(pid) - before:  # a message that it has not taken would wait for it
        time.sleep(0.05)
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    environment = dict(pair.split("=", 1) for pair in pairs if pair)
    os.killpg(pid, signal.SIGKILL)
    codes.append(supernode.run_supernode(words, environment, Path(words[words.index(KEY) + 1])))


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_a_deployment_equals_one_process_and_a_killed_node_takes_part_again(
    preset, federate, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(supernode, "RETRY_SECONDS", 5.0)
    monkeypatch.setattr(supernode, "ATTEMPTS", 30)
    rounds = 4
    path = preset(f"num_rounds = {rounds}\nmin_clients = 1\ntimeout = 90", clients=2)
    log, codes = tmp_path / "out" / "mixture" / "log.jsonl", []
    killer = threading.Thread(target=kill_and_start_again, args=(log, codes), daemon=True)
    killer.start()
    try:
        assert federate(path, "out", "--runtime", "deployment") == 0
    finally:
        pid = find_process(CLIENT)  # the server is gone: it would look for it for ever
        if pid:
            os.kill(pid, signal.SIGTERM)
        killer.join(60)
    assert len(codes) == 1
    assert "refuses this key: a lost node" in capsys.readouterr().err
    assert federate(path, "here") == 0
    here, record = (
        json.loads((tmp_path / out / "mixture" / RESULT).read_text(encoding="utf-8"))
        for out in ("here", "out")
    )
    first = [r["rounds"][0] for r in (here, record)]
    assert not first[1]["failures"]
    assert first[1]["loss"] == pytest.approx(first[0]["loss"], abs=1e-3)
    clean = [entry["summary"]["clean"]["mean"] for entry in first]
    assert abs(clean[0] - clean[1]) <= 0.01
    trained = [entry["trained"] for entry in record["rounds"]]
    assert len(trained) == rounds
    assert trained[0] == [0, 1] == trained[-1]  # it went on with its own state, which was on disk
    assert all(0 in clients for clients in trained)
    told = [entry for entry in record["rounds"] if CLIENT not in entry["trained"]]
    assert told and all(
        str(CLIENT) in entry["failures"] or CLIENT not in entry["asked"] for entry in told
    )
