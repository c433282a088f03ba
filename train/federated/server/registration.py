"""Client registration: maps nodes to clients; each node is asked once."""

from __future__ import annotations

import time

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from train.federated.experiment import Experiment
from train.federated.server.live_table import Table
from train.federated.server.messaging import POLL, exchange


class ClientRegistry:
    """Registry of connected clients; nodes that do not fit are refused with a reason."""

    def __init__(self, grid: Grid, experiment: Experiment, table: Table) -> None:
        self._grid = grid
        self._experiment = experiment
        self._table = table
        self._clients: dict[int, int] = {}  # node -> client
        self._refused: set[int] = set()  # for good; who merely failed is asked again next round
        self._reasons: list[str] = []
        self.scans: dict[int, int] = {}  # client -> training scans

    def call(self, wanted: int) -> dict[int, int]:
        """Map connected clients to nodes; wait until `wanted` are there, or the time is up."""
        deadline = time.monotonic() + self._experiment.config.timeout
        out = set(self._refused)
        while True:
            nodes = set(self._grid.get_node_ids())
            out |= self._ask(sorted(nodes - self._clients.keys() - out))
            present = {c: node for node, c in self._clients.items() if node in nodes}
            if len(present) >= wanted or time.monotonic() > deadline:
                return dict(sorted(present.items()))
            if nodes <= self._clients.keys() | out and self._has_all(nodes):
                return dict(sorted(present.items()))
            time.sleep(5 * POLL)

    def reasons(self) -> list[str]:
        """Return the nodes refused since the last call, with reasons."""
        said, self._reasons = self._reasons, []
        return said

    def _has_all(self, nodes: set[int]) -> bool:
        """Return True where all clients are connected."""
        return len(nodes) >= self._experiment.config.partition.num_clients

    def _ask(self, nodes: list[int]) -> set[int]:
        """Register the nodes that fit; record the others with a reason."""
        if not nodes:
            return set()
        messages = {n: Message(RecordDict(), n, MessageType.QUERY) for n in nodes}
        present = set(self._grid.get_node_ids())
        answers, failures = exchange(
            self._grid, messages, self._experiment.config.timeout, lambda *_: None
        )
        for node, reply in answers.items():
            who = reply.content.config_records.get("who", ConfigRecord())
            reason = self._unfit(who, present)
            if reason:
                failures[node] = reason
                self._refused.add(node)
                continue
            client, scans = int(str(who["client"])), int(str(who["num-train"]))
            self._clients[node], self.scans[client] = client, scans
            self._table.scans(client, scans)
        for node, reason in failures.items():
            self._reasons.append(f"node {node} takes no part: {reason}")
            self._table.say(self._reasons[-1])
        return set(failures)

    def _unfit(self, who: ConfigRecord, present: set[int]) -> str:
        client, count = who.get("client"), self._experiment.config.partition.num_clients
        if not isinstance(client, int) or not 0 <= client < count:
            return f"it says that it is client {client!r}, there are clients 0 to {count - 1}"
        if client in [c for node, c in self._clients.items() if node in present]:
            return f"client {client} is there already"
        if who.get("digest") != self._experiment.digest:
            return f"client {client} has another preset, protocol or seed"
        if not isinstance(who.get("num-train"), int):
            return f"client {client} does not say how many scans it has"
        return ""
