"""Flower's server app: asks, checks, aggregates, keeps. It never sees a scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from train.federated import metrics, secagg
from train.federated.experiment import read_experiment
from train.federated.serialization import PayloadError, pack, unpack
from train.federated.server import strategies
from train.federated.server.adv_propagation import build_share_entries
from train.federated.server.live_table import Table
from train.federated.server.messaging import Answers, Failures, Mailbox, exchange
from train.federated.server.registration import ClientRegistry
from train.federated.server.run_state import RunState
from train.federated.server.strategies import COUNT, SECONDS, RunningMean
from train.progress import Progress

SHOWN = ("loss", "clean", "pgd", SECONDS)
PATIENCE = 3  # rounds in a row that may be skipped

app = ServerApp()


class FederationError(RuntimeError):
    """The federation cannot go on."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds of the run's experiment."""
    run = context.run_config
    experiment = read_experiment(
        str(run["preset"]), str(run["protocol"]), int(run["seed"]), str(run["phase"])
    )
    out, start = Path(str(run["out"])), str(run.get("start", ""))
    Server(grid, RunState(experiment, out, resume=bool(run["resume"]), start=start)).run()


class Server:
    """Runs the rounds of one experiment and keeps the state after each."""

    def __init__(self, grid: Grid, run_state: RunState) -> None:
        self.grid, self.run_state, self.experiment = grid, run_state, run_state.experiment
        self.table = Table()
        self.registry = ClientRegistry(grid, self.experiment, self.table)
        self.log = Progress("federated", run_state.out / "log.jsonl")
        if done := len(run_state.history):
            self.table.say(f"goes on after round {done}")

    def run(self) -> None:
        """Run the remaining rounds; then each client keeps the network of the best.

        Raises:
            FederationError: three rounds in a row were skipped, or nothing came of all of them.
        """
        run_state, total = self.run_state, self.experiment.num_rounds
        megabytes = sum(t.nbytes for t in run_state.shared.values()) / 1e6
        self.table.say(
            f"{self.experiment.phase} {self.experiment.digest[:12]}: "
            f"{self.experiment.config.partition.num_clients} clients, {total} rounds, "
            f"{megabytes:.1f} MB to and from each client a round"
        )
        for round_index in range(len(run_state.history) + 1, total + 1):
            entry, shared = self._round(round_index)
            run_state.add(entry, shared)
            self.log.write(**entry, of=total)
            self.table.say(metrics.line(round_index, total, entry))
            last = run_state.history[-PATIENCE:]
            if len(last) == PATIENCE and all(r["skipped"] for r in last):
                raise FederationError(
                    f"{PATIENCE} rounds in a row were skipped: {entry['skipped']}"
                )
        run_state.write_result(self._finish())
        if not run_state.best_round:
            why = run_state.history[-1]["skipped"] or "no client could validate what was learned"
            raise FederationError(f"nothing came of {total} rounds: {why}")
        self.table.close()

    def _finish(self) -> dict[str, Any]:
        """Let each client keep the best round's network; return its metrics."""
        if not self.run_state.best_round:
            return {}
        figures, failed = self._evaluate(
            self.run_state.best_round, self.run_state.best, finish=True
        )
        return {
            "clients": {str(client): f for client, f in figures.items()},
            "failures": {str(client): reason for client, reason in failed.items()},
            "summary": metrics.summary(figures) if figures else {},
        }

    def _round(self, round_index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Run one round: train, check, aggregate, evaluate (III-D2)."""
        nodes = self._chosen(round_index)
        is_mean = strategies.is_mean(self.experiment.config.strategy) or not self.run_state.shared
        mean = RunningMean() if is_mean else None
        answers, failures = self._train(nodes, round_index, mean)
        entry: dict[str, Any] = {"round": round_index, "asked": sorted(nodes), "skipped": ""}
        entry["refused"] = self.registry.reasons()
        new = self._aggregate(answers, mean)
        entry["failures"] = {str(client): reason for client, reason in failures.items()}
        entry["trained"] = sorted(answers)
        if isinstance(new, str):
            skipped: dict[str, Any] = {"skipped": new, "loss": None, "clients": {}, "summary": {}}
            return entry | skipped, self.run_state.shared
        new = self.run_state.step(new)
        self.run_state.joined = sorted({*self.run_state.joined, *answers})
        counts = [int(str(a.content.metric_records["metrics"][COUNT])) for a in answers.values()]
        losses = [float(str(a.content.metric_records["metrics"]["loss"])) for a in answers.values()]
        entry["loss"] = float(np.average(losses, weights=counts))
        is_measured = round_index % self.experiment.config.eval_every == 0
        if not is_measured and round_index < self.experiment.num_rounds:
            return entry | {"clients": {}, "summary": {}}, new
        figures, failed = self._evaluate(round_index, self.run_state.averaged(new))
        entry["failures"] |= {f"{c} (validation)": reason for c, reason in failed.items()}
        entry["clients"] = {str(client): f for client, f in figures.items()}
        entry["summary"] = metrics.summary(figures) if figures else {}
        return entry, new

    def _chosen(self, round_index: int) -> dict[int, int]:
        """Draw the clients of this round by seed and round."""
        config = self.experiment.config
        late = config.late_clients if round_index < config.join_round else ()
        wanted = (
            config.partition.num_clients - len(late) if round_index == 1 else config.min_clients
        )
        present = {c: n for c, n in self.registry.call(wanted).items() if c not in late}
        share = 1.0 if self.experiment.is_solved else config.fraction
        count = min(len(present), max(config.min_clients, round(share * len(present))))
        picked = np.random.default_rng([self.experiment.seed, round_index]).permutation(
            sorted(present)
        )
        return {c: present[c] for c in sorted(picked[:count].tolist())}

    def _train(
        self, nodes: Mapping[int, int], round_index: int, mean: RunningMean | None
    ) -> tuple[Answers, Failures]:
        """Collect the clients' checked tensors; with `mean` they are added up and not kept."""
        total = self.experiment.num_rounds
        own: dict[str, Any] = {
            "best": self.run_state.best_round,
            "joined": [*self.run_state.joined],
            "start": self.run_state.start,
            "from": (round_index - 1) / total,
            "to": round_index / total,
        }
        shares = build_share_entries(
            self.experiment, {client: self.registry.scans[client] for client in nodes}
        )
        arrays = pack(self.run_state.shared)
        messages = {
            client: _message(
                node, MessageType.TRAIN, arrays, round=round_index, **own, **shares.get(client, {})
            )
            for client, node in nodes.items()
        }
        self.table.ask(list(nodes), "trains")
        settings = self.experiment.config.strategy
        mailbox: Mailbox = self.grid
        if settings.secagg:
            heaviest = max(self.registry.scans.values(), default=1)
            mailbox = secagg.SecAggGrid(
                self.grid, self.run_state.shared, settings.secagg_range, heaviest
            )

        def take(client: int, answer: Message | str) -> str | None:
            if isinstance(answer, Message):
                try:
                    tensors = self._checked(client, answer.content)
                except PayloadError as error:
                    self.table.heard(client, str(error))
                    return str(error)
                if mean is not None:
                    mean.add(tensors, self.registry.scans[client])
                    del answer.content["arrays"]
            return self._heard(client, answer)

        return exchange(mailbox, messages, self.experiment.config.timeout, take)

    def _checked(self, client: int, content: RecordDict) -> dict[str, Tensor]:
        """Unpack a client's tensors. Raises PayloadError where they do not fit."""
        sender = f"client {client}"
        if "arrays" not in content.array_records or "metrics" not in content.metric_records:
            raise PayloadError(f"{sender} sent no arrays or no metrics")
        tensors = unpack(content.array_records["arrays"], self.run_state.shared, sender)
        metrics = content.metric_records["metrics"]
        if metrics.get(COUNT) != self.registry.scans.get(client):
            raise PayloadError(
                f"{sender} weighs itself {metrics.get(COUNT)} scans, "
                f"it said {self.registry.scans.get(client)}"
            )
        loss = metrics.get("loss")
        if not isinstance(loss, float) or not np.isfinite(loss):
            raise PayloadError(f"{sender} reports the loss {loss}")
        return tensors

    def _aggregate(self, answers: Answers, mean: RunningMean | None) -> dict[str, Tensor] | str:
        """Aggregate the answers; return the new tensors, or the reason that there are none."""
        fewest = self.experiment.config.min_clients
        if len(answers) < fewest:
            return f"{len(answers)} clients answered of the {fewest} that min_clients asks for"
        settings = self.experiment.config.strategy
        if mean is not None:
            return mean.result()
        strategy = strategies.build(settings, pack(self.run_state.shared), len(answers))
        arrays, _ = strategy.aggregate_train(
            len(self.run_state.history) + 1, list(answers.values())
        )
        if arrays is None:
            return f"{settings.name} could not aggregate {len(answers)} answers"
        try:
            new = unpack(arrays, self.run_state.shared, "the aggregation")
        except PayloadError as error:
            return str(error)
        return secagg.applied(new, self.run_state.shared) if settings.secagg else new

    def _evaluate(
        self, round_index: int, shared: Mapping[str, Tensor], *, finish: bool = False
    ) -> tuple[dict[int, dict[str, float]], Failures]:
        """Evaluate every joined client with its personal tensors of a round.

        Where there is nothing of its own, a client that has not joined can finish as well.
        """
        everyone = finish and self.experiment.is_all_shared
        nodes = {
            c: n for c, n in self.registry.call(0).items() if everyone or c in self.run_state.joined
        }
        self.table.ask(list(nodes), "validates")
        arrays = pack(shared)
        messages = {
            client: _message(node, MessageType.EVALUATE, arrays, round=round_index, finish=finish)
            for client, node in nodes.items()
        }
        answers, failures = exchange(
            self.grid, messages, self.experiment.config.timeout, self._heard
        )
        figures = {}
        for client, reply in answers.items():
            found = {k: v for k, v in _figures(reply).items() if k != SECONDS}
            if COUNT not in found or not np.isfinite(list(found.values())).all():
                failures[client] = f"client {client} reports figures that are no numbers"
                continue
            figures[client] = found
        return figures, failures

    def _heard(self, client: int, answer: Message | str) -> str | None:
        shown = answer if isinstance(answer, str) else _figures(answer)
        if isinstance(shown, dict):
            shown = {k: v for k, v in shown.items() if k in SHOWN}
        self.table.heard(client, shown)
        return None


def _figures(reply: Message) -> dict[str, float]:
    """Return the numbers of a reply's metrics."""
    metrics = reply.content.metric_records.get("metrics")
    return {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}


def _message(node: int, kind: str, arrays: ArrayRecord, **config: Any) -> Message:
    return Message(RecordDict({"arrays": arrays, "config": ConfigRecord(config)}), node, kind)
