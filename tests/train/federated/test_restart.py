"""A hospital's node, a real process, is killed during a run and started again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from train.federated.runtime.supernode import run_supernode
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


def kill_and_start_again(log: Path, codes: list[int]) -> None:
    """Kill the node with its children after the first round, and start it again."""
    while not log.is_file() or not log.read_text():
        time.sleep(0.2)
    pid = find_process(CLIENT)
    assert pid
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    environment = dict(pair.split("=", 1) for pair in pairs if pair)
    os.killpg(pid, signal.SIGKILL)
    codes.append(run_supernode(words, environment, Path(words[words.index(KEY) + 1])))


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_a_node_that_is_killed_and_started_again_takes_part_again(
    preset, federate, tmp_path, capsys
):
    rounds = 6
    path = preset(f"num_rounds = {rounds}\nmin_clients = 1\ntimeout = 45", clients=2)
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
    record = json.loads((tmp_path / "out" / "mixture" / RESULT).read_text(encoding="utf-8"))
    trained = [entry["trained"] for entry in record["rounds"]]
    assert len(trained) == rounds
    assert trained[0] == [0, 1] == trained[-1]  # it went on with its own state, which was on disk
    assert all(0 in clients for clients in trained)
    told = [entry for entry in record["rounds"] if CLIENT not in entry["trained"]]
    assert told and all(
        str(CLIENT) in entry["failures"] or CLIENT not in entry["asked"] for entry in told
    )
