"""Registration: which node is which client, asked once of each node that connects."""

from __future__ import annotations

import time

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from train.federated.experiment import Experiment
from train.federated.server.live_table import LiveTable
from train.federated.server.messaging import POLL_SECONDS, exchange


class ClientRegistry:
    """Clients by node. A node that does not belong to the experiment is refused with a reason."""

    def __init__(self, grid: Grid, experiment: Experiment, table: LiveTable) -> None:
        self._grid = grid
        self._experiment = experiment
        self._table = table
        self._clients: dict[int, int] = {}  # node -> client
        self._refused: set[int] = set()  # for good; a failed node is asked again next round
        self._reasons: list[str] = []
        self.scans: dict[int, int] = {}  # client -> training scans

    def present(self, wanted: int) -> dict[int, int]:
        """Return client -> node of all connected clients, after `wanted` are there or a timeout."""
        deadline = time.monotonic() + self._experiment.config.timeout
        out = set(self._refused)
        while True:
            nodes = set(self._grid.get_node_ids())
            out |= self._register(sorted(nodes - self._clients.keys() - out))
            present = {c: node for node, c in self._clients.items() if node in nodes}
            if len(present) >= wanted or time.monotonic() > deadline:
                return dict(sorted(present.items()))
            if nodes <= self._clients.keys() | out and self._is_complete(nodes):
                return dict(sorted(present.items()))
            time.sleep(5 * POLL_SECONDS)

    def take_refusals(self) -> list[str]:
        """Return the reasons of all refusals since the last call."""
        reasons, self._reasons = self._reasons, []
        return reasons

    def _is_complete(self, nodes: set[int]) -> bool:
        """Return True if there are as many nodes as clients, so that no other can come."""
        return len(nodes) >= self._experiment.config.partition.num_clients

    def _register(self, nodes: list[int]) -> set[int]:
        """Register the nodes that fit; return the others, each with its reason recorded."""
        if not nodes:
            return set()
        messages = {n: Message(RecordDict(), n, MessageType.QUERY) for n in nodes}
        present = set(self._grid.get_node_ids())
        replies, failures = exchange(
            self._grid, messages, self._experiment.config.timeout, lambda *_: None
        )
        for node, reply in replies.items():
            identity = reply.content.config_records.get("who", ConfigRecord())
            reason = self._find_misfit(identity, present)
            if reason:
                failures[node] = reason
                self._refused.add(node)
                continue
            client, scans = int(str(identity["client"])), int(str(identity["num-train"]))
            self._clients[node], self.scans[client] = client, scans
            self._table.add_client(client, scans)
        for node, reason in failures.items():
            self._reasons.append(f"node {node} takes no part: {reason}")
            self._table.print_line(self._reasons[-1])
        return set(failures)

    def _find_misfit(self, identity: ConfigRecord, present: set[int]) -> str:
        """Return why a node cannot take part; empty if it can."""
        client, count = identity.get("client"), self._experiment.config.partition.num_clients
        if not isinstance(client, int) or not 0 <= client < count:
            return f"it says that it is client {client!r}, there are clients 0 to {count - 1}"
        if client in [c for node, c in self._clients.items() if node in present]:
            return f"client {client} is there already"
        if identity.get("digest") != self._experiment.digest:
            return f"client {client} has another preset, protocol or seed"
        if not isinstance(identity.get("num-train"), int):
            return f"client {client} does not say how many scans it has"
        return ""
