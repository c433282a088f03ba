"""Server app: rounds of training, checked replies, aggregation, validation. It sees no scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from train.federated import metrics, secagg
from train.federated.experiment import FederationError, read_experiment
from train.federated.metrics import SCAN_COUNT, SECONDS
from train.federated.serialization import PayloadError, pack, unpack
from train.federated.server import strategies
from train.federated.server.adv_propagation import adv_shares_message
from train.federated.server.live_table import LiveTable
from train.federated.server.messaging import Failures, Mailbox, Replies, exchange
from train.federated.server.registration import ClientRegistry
from train.federated.server.run_state import RunState
from train.federated.server.strategies import RunningMean
from train.progress import Progress

MAX_SKIPPED = 3  # rounds in a row

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of the run's experiment."""
    run = context.run_config
    experiment = read_experiment(
        str(run["preset"]), str(run["protocol"]), int(run["seed"]), str(run["phase"])
    )
    out, start = Path(str(run["out"])), str(run.get("start", ""))
    Server(grid, RunState(experiment, out, resume=bool(run["resume"]), start=start)).run()


class Server:
    """Rounds of one experiment, written to its state after each."""

    def __init__(self, grid: Grid, state: RunState) -> None:
        self.grid, self.state, self.experiment = grid, state, state.experiment
        self.table = LiveTable()
        self.registry = ClientRegistry(grid, self.experiment, self.table)
        self.log = Progress("federated", state.out / "log.jsonl")
        if done := len(state.history):
            self.table.print_line(f"resumes after round {done}")

    def run(self) -> None:
        """Run all remaining rounds; then let each client keep the best round's network.

        Raises:
            FederationError: three rounds in a row were skipped, or no round could be validated.
        """
        state, total = self.state, self.experiment.num_rounds
        megabytes = sum(t.nbytes for t in state.shared.values()) / 1e6
        self.table.print_line(
            f"{self.experiment.phase} {self.experiment.digest[:12]}: "
            f"{self.experiment.config.partition.num_clients} clients, {total} rounds, "
            f"{megabytes:.1f} MB to and from each client a round"
        )
        for round_index in range(len(state.history) + 1, total + 1):
            entry, shared = self._round(round_index)
            state.add_round(entry, shared)
            self.log.write(**entry, of=total)
            self.table.print_line(metrics.format_round(round_index, total, entry))
            last = state.history[-MAX_SKIPPED:]
            if len(last) == MAX_SKIPPED and all(r["skipped"] for r in last):
                raise FederationError(
                    f"{MAX_SKIPPED} rounds in a row were skipped: {entry['skipped']}"
                )
        state.write_result(self._finish())
        if not state.best_round:
            why = state.history[-1]["skipped"] or "no client could validate the trained network"
            raise FederationError(f"{total} rounds led to no network: {why}")
        self.table.close()

    def _finish(self) -> dict[str, Any]:
        """Let each client keep the best round's network; return its metrics."""
        if not self.state.best_round:
            return {}
        figures, failed = self._evaluate(self.state.best_round, self.state.best, finish=True)
        return {
            "clients": {str(client): f for client, f in figures.items()},
            "failures": {str(client): reason for client, reason in failed.items()},
            "summary": metrics.summarize(figures) if figures else {},
        }

    def _round(self, round_index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Run one round (III-D2); return its record and the shared tensors after it."""
        nodes = self._choose_clients(round_index)
        is_mean = (
            strategies.is_running_mean(self.experiment.config.strategy) or not self.state.shared
        )
        mean = RunningMean() if is_mean else None
        replies, failures = self._train(nodes, round_index, mean)
        entry: dict[str, Any] = {"round": round_index, "asked": sorted(nodes), "skipped": ""}
        entry["refused"] = self.registry.take_refusals()
        new = self._aggregate(replies, mean)
        entry["failures"] = {str(client): reason for client, reason in failures.items()}
        entry["trained"] = sorted(replies)
        if isinstance(new, str):
            skipped: dict[str, Any] = {"skipped": new, "loss": None, "clients": {}, "summary": {}}
            return entry | skipped, self.state.shared
        new = self.state.apply_momentum(new)
        self.state.joined = sorted({*self.state.joined, *replies})
        counts = [
            int(str(a.content.metric_records["metrics"][SCAN_COUNT])) for a in replies.values()
        ]
        losses = [float(str(a.content.metric_records["metrics"]["loss"])) for a in replies.values()]
        entry["loss"] = float(np.average(losses, weights=counts))
        is_measured = round_index % self.experiment.config.eval_every == 0
        if not is_measured and round_index < self.experiment.num_rounds:
            return entry | {"clients": {}, "summary": {}}, new
        figures, failed = self._evaluate(round_index, self.state.average_rounds(new))
        entry["failures"] |= {f"{c} (validation)": reason for c, reason in failed.items()}
        entry["clients"] = {str(client): f for client, f in figures.items()}
        entry["summary"] = metrics.summarize(figures) if figures else {}
        return entry, new

    def _choose_clients(self, round_index: int) -> dict[int, int]:
        """Return client -> node of the clients of this round, drawn by seed and round."""
        config = self.experiment.config
        late = config.late_clients if round_index < config.join_round else ()
        wanted = (
            config.partition.num_clients - len(late) if round_index == 1 else config.min_clients
        )
        present = {c: n for c, n in self.registry.present(wanted).items() if c not in late}
        share = 1.0 if self.experiment.is_solved else config.fraction
        count = min(len(present), max(config.min_clients, round(share * len(present))))
        picked = np.random.default_rng([self.experiment.seed, round_index]).permutation(
            sorted(present)
        )
        return {c: present[c] for c in sorted(picked[:count].tolist())}

    def _train(
        self, nodes: Mapping[int, int], round_index: int, mean: RunningMean | None
    ) -> tuple[Replies, Failures]:
        """Let clients train; return checked replies. With `mean`, their arrays are added to it."""
        total = self.experiment.num_rounds
        config: dict[str, Any] = {
            "best": self.state.best_round,
            "joined": [*self.state.joined],
            "start": self.state.start,
            "from": (round_index - 1) / total,
            "to": round_index / total,
        }
        shares = adv_shares_message(
            self.experiment, {client: self.registry.scans[client] for client in nodes}
        )
        arrays = pack(self.state.shared)
        messages = {
            client: _build_message(
                node,
                MessageType.TRAIN,
                arrays,
                round=round_index,
                **config,
                **shares.get(client, {}),
            )
            for client, node in nodes.items()
        }
        self.table.set_activity(list(nodes), "trains")
        settings = self.experiment.config.strategy
        mailbox: Mailbox = self.grid
        if settings.secagg:
            heaviest = max(self.registry.scans.values(), default=1)
            mailbox = secagg.SecAggGrid(
                self.grid, self.state.shared, settings.secagg_range, heaviest
            )

        def take(client: int, reply: Message | str) -> str | None:
            if isinstance(reply, Message):
                try:
                    tensors = self._unpack_update(client, reply.content)
                except PayloadError as error:
                    self.table.show_reply(client, str(error))
                    return str(error)
                if mean is not None:
                    mean.add(tensors, 1 if settings.equal else self.registry.scans[client])
                    del reply.content["arrays"]
            self._show(client, reply)
            return None

        return exchange(mailbox, messages, self.experiment.config.timeout, take)

    def _unpack_update(self, client: int, content: RecordDict) -> dict[str, Tensor]:
        """Return the tensors of a client's reply; raises PayloadError where they are not valid."""
        sender = f"client {client}"
        if "arrays" not in content.array_records or "metrics" not in content.metric_records:
            raise PayloadError(f"{sender} sent no arrays or no metrics")
        tensors = unpack(content.array_records["arrays"], self.state.shared, sender)
        metrics = content.metric_records["metrics"]
        if metrics.get(SCAN_COUNT) != self.registry.scans.get(client):
            raise PayloadError(
                f"{sender} reports {metrics.get(SCAN_COUNT)} scans, "
                f"it registered with {self.registry.scans.get(client)}"
            )
        loss = metrics.get("loss")
        if not isinstance(loss, float) or not np.isfinite(loss):
            raise PayloadError(f"{sender} reports the loss {loss}")
        return tensors

    def _aggregate(self, replies: Replies, mean: RunningMean | None) -> dict[str, Tensor] | str:
        """Return the new shared tensors, or the reason why there are none."""
        fewest = self.experiment.config.min_clients
        if len(replies) < fewest:
            return f"{len(replies)} clients answered of the {fewest} that min_clients asks for"
        settings = self.experiment.config.strategy
        if mean is not None:
            return mean.result()
        strategy = strategies.build_strategy(settings, pack(self.state.shared), len(replies))
        arrays, _ = strategy.aggregate_train(len(self.state.history) + 1, list(replies.values()))
        if arrays is None:
            return f"{settings.name} could not aggregate {len(replies)} replies"
        try:
            new = unpack(arrays, self.state.shared, "the aggregation")
        except PayloadError as error:
            return str(error)
        return secagg.add_update(new, self.state.shared) if settings.secagg else new

    def _evaluate(
        self, round_index: int, shared: Mapping[str, Tensor], *, finish: bool = False
    ) -> tuple[dict[int, dict[str, float]], Failures]:
        """Return metrics of every joined client, with its personal tensors of the round.

        Where all is shared, a client that has not joined can finish as well.
        """
        everyone = finish and self.experiment.is_all_shared
        nodes = {
            c: n for c, n in self.registry.present(0).items() if everyone or c in self.state.joined
        }
        self.table.set_activity(list(nodes), "validates")
        arrays = pack(shared)
        messages = {
            client: _build_message(
                node, MessageType.EVALUATE, arrays, round=round_index, finish=finish
            )
            for client, node in nodes.items()
        }
        replies, failures = exchange(
            self.grid, messages, self.experiment.config.timeout, self._show
        )
        figures = {}
        for client, reply in replies.items():
            values = {k: v for k, v in _read_metrics(reply).items() if k != SECONDS}
            if SCAN_COUNT not in values or not np.isfinite(list(values.values())).all():
                failures[client] = f"client {client} reports metrics that are not finite"
                continue
            figures[client] = values
        return figures, failures

    def _show(self, client: int, reply: Message | str) -> None:
        self.table.show_reply(client, reply if isinstance(reply, str) else _read_metrics(reply))


def _read_metrics(reply: Message) -> dict[str, float]:
    """Return all numbers of a reply's metrics."""
    metrics = reply.content.metric_records.get("metrics")
    return {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}


def _build_message(node: int, kind: str, arrays: ArrayRecord, **config: Any) -> Message:
    return Message(RecordDict({"arrays": arrays, "config": ConfigRecord(config)}), node, kind)
