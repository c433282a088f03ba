"""The server's side of the wire: ask, check, aggregate, keep. It never sees a scan."""

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
from train.federated.server.adv_propagation import told
from train.federated.server.live_table import Table
from train.federated.server.messaging import Answers, Failures, Mailbox, exchange
from train.federated.server.registration import Roll
from train.federated.server.run_state import Ledger
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
    Server(grid, Ledger(experiment, out, resume=bool(run["resume"]), start=start)).run()


class Server:
    """Rounds of one experiment, kept by its ledger after each."""

    def __init__(self, grid: Grid, ledger: Ledger) -> None:
        self.grid, self.ledger, self.experiment = grid, ledger, ledger.experiment
        self.table = Table()
        self.roll = Roll(grid, self.experiment, self.table)
        self.log = Progress("federated", ledger.out / "log.jsonl")
        if done := len(ledger.history):
            self.table.say(f"goes on after round {done}")

    def run(self) -> None:
        """All rounds that are left; then each client keeps what the best of them has led to.

        Raises:
            FederationError: three rounds in a row were skipped, or nothing came of all of them.
        """
        ledger, total = self.ledger, self.experiment.num_rounds
        megabytes = sum(t.nbytes for t in ledger.shared.values()) / 1e6
        self.table.say(
            f"{self.experiment.phase} {self.experiment.digest[:12]}: "
            f"{self.experiment.config.partition.num_clients} clients, {total} rounds, "
            f"{megabytes:.1f} MB to and from each client a round"
        )
        for now in range(len(ledger.history) + 1, total + 1):
            entry, shared = self._round(now)
            ledger.add(entry, shared)
            self.log.write(**entry, of=total)
            self.table.say(metrics.line(now, total, entry))
            last = ledger.history[-PATIENCE:]
            if len(last) == PATIENCE and all(r["skipped"] for r in last):
                raise FederationError(
                    f"{PATIENCE} rounds in a row were skipped: {entry['skipped']}"
                )
        ledger.write_result(self._finish())
        if not ledger.best_round:
            why = ledger.history[-1]["skipped"] or "no client could validate what was learned"
            raise FederationError(f"nothing came of {total} rounds: {why}")
        self.table.close()

    def _finish(self) -> dict[str, Any]:
        """Lets each client keep the best round's network; figures of it."""
        if not self.ledger.best_round:
            return {}
        figures, failed = self._evaluate(self.ledger.best_round, self.ledger.best, finish=True)
        return {
            "clients": {str(client): f for client, f in figures.items()},
            "failures": {str(client): reason for client, reason in failed.items()},
            "summary": metrics.summary(figures) if figures else {},
        }

    def _round(self, now: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Train, check, aggregate, evaluate (III-D2); its record and what is shared after."""
        nodes = self._chosen(now)
        is_mean = strategies.is_mean(self.experiment.config.strategy) or not self.ledger.shared
        mean = RunningMean() if is_mean else None
        answers, failures = self._train(nodes, now, mean)
        entry: dict[str, Any] = {"round": now, "asked": sorted(nodes), "skipped": ""}
        entry["refused"] = self.roll.reasons()
        new = self._aggregate(answers, mean)
        entry["failures"] = {str(client): reason for client, reason in failures.items()}
        entry["trained"] = sorted(answers)
        if isinstance(new, str):
            skipped: dict[str, Any] = {"skipped": new, "loss": None, "clients": {}, "summary": {}}
            return entry | skipped, self.ledger.shared
        new = self.ledger.step(new)
        self.ledger.joined = sorted({*self.ledger.joined, *answers})
        counts = [int(str(a.content.metric_records["metrics"][COUNT])) for a in answers.values()]
        losses = [float(str(a.content.metric_records["metrics"]["loss"])) for a in answers.values()]
        entry["loss"] = float(np.average(losses, weights=counts))
        is_measured = now % self.experiment.config.eval_every == 0
        if not is_measured and now < self.experiment.num_rounds:
            return entry | {"clients": {}, "summary": {}}, new
        figures, failed = self._evaluate(now, self.ledger.averaged(new))
        entry["failures"] |= {f"{c} (validation)": reason for c, reason in failed.items()}
        entry["clients"] = {str(client): f for client, f in figures.items()}
        entry["summary"] = metrics.summary(figures) if figures else {}
        return entry, new

    def _chosen(self, now: int) -> dict[int, int]:
        """Client -> node of those asked in this round; seed and round decide who."""
        config = self.experiment.config
        late = config.late_clients if now < config.join_round else ()
        wanted = config.partition.num_clients - len(late) if now == 1 else config.min_clients
        present = {c: n for c, n in self.roll.call(wanted).items() if c not in late}
        share = 1.0 if self.experiment.is_solved else config.fraction
        count = min(len(present), max(config.min_clients, round(share * len(present))))
        picked = np.random.default_rng([self.experiment.seed, now]).permutation(sorted(present))
        return {c: present[c] for c in sorted(picked[:count].tolist())}

    def _train(
        self, nodes: Mapping[int, int], now: int, mean: RunningMean | None
    ) -> tuple[Answers, Failures]:
        """What the clients learned, each answer checked; with `mean`, taken in and let go."""
        total = self.experiment.num_rounds
        own: dict[str, Any] = {
            "best": self.ledger.best_round,
            "joined": [*self.ledger.joined],
            "start": self.ledger.start,
            "from": (now - 1) / total,
            "to": now / total,
        }
        shares = told(self.experiment, {client: self.roll.scans[client] for client in nodes})
        arrays = pack(self.ledger.shared)
        messages = {
            client: _message(
                node, MessageType.TRAIN, arrays, round=now, **own, **shares.get(client, {})
            )
            for client, node in nodes.items()
        }
        self.table.ask(list(nodes), "trains")
        settings = self.experiment.config.strategy
        mailbox: Mailbox = self.grid
        if settings.secagg:
            heaviest = max(self.roll.scans.values(), default=1)
            mailbox = secagg.SecAggGrid(
                self.grid, self.ledger.shared, settings.secagg_range, heaviest
            )

        def take(client: int, answer: Message | str) -> str | None:
            if isinstance(answer, Message):
                try:
                    tensors = self._checked(client, answer.content)
                except PayloadError as error:
                    self.table.heard(client, str(error))
                    return str(error)
                if mean is not None:
                    mean.add(tensors, self.roll.scans[client])
                    del answer.content["arrays"]
            return self._heard(client, answer)

        return exchange(mailbox, messages, self.experiment.config.timeout, take)

    def _checked(self, client: int, content: RecordDict) -> dict[str, Tensor]:
        """What a client has learned. Raises PayloadError where it is not what was asked for."""
        sender = f"client {client}"
        if "arrays" not in content.array_records or "metrics" not in content.metric_records:
            raise PayloadError(f"{sender} sent no arrays or no metrics")
        tensors = unpack(content.array_records["arrays"], self.ledger.shared, sender)
        metrics = content.metric_records["metrics"]
        if metrics.get(COUNT) != self.roll.scans.get(client):
            raise PayloadError(
                f"{sender} weighs itself {metrics.get(COUNT)} scans, "
                f"it said {self.roll.scans.get(client)}"
            )
        loss = metrics.get("loss")
        if not isinstance(loss, float) or not np.isfinite(loss):
            raise PayloadError(f"{sender} reports the loss {loss}")
        return tensors

    def _aggregate(self, answers: Answers, mean: RunningMean | None) -> dict[str, Tensor] | str:
        """The new experts, or why there are none."""
        fewest = self.experiment.config.min_clients
        if len(answers) < fewest:
            return f"{len(answers)} clients answered of the {fewest} that min_clients asks for"
        settings = self.experiment.config.strategy
        if mean is not None:
            return mean.result()
        strategy = strategies.build(settings, pack(self.ledger.shared), len(answers))
        arrays, _ = strategy.aggregate_train(len(self.ledger.history) + 1, list(answers.values()))
        if arrays is None:
            return f"{settings.name} could not aggregate {len(answers)} answers"
        try:
            new = unpack(arrays, self.ledger.shared, "the aggregation")
        except PayloadError as error:
            return str(error)
        return secagg.applied(new, self.ledger.shared) if settings.secagg else new

    def _evaluate(
        self, now: int, shared: Mapping[str, Tensor], *, finish: bool = False
    ) -> tuple[dict[int, dict[str, float]], Failures]:
        """Figures of every client that has joined, with its own of round `now`.

        Where there is nothing of its own, a client that has not joined can finish as well.
        """
        everyone = finish and self.experiment.is_all_shared
        nodes = {c: n for c, n in self.roll.call(0).items() if everyone or c in self.ledger.joined}
        self.table.ask(list(nodes), "validates")
        arrays = pack(shared)
        messages = {
            client: _message(node, MessageType.EVALUATE, arrays, round=now, finish=finish)
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
    """All numbers of a reply's metrics."""
    metrics = reply.content.metric_records.get("metrics")
    return {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}


def _message(node: int, kind: str, arrays: ArrayRecord, **config: Any) -> Message:
    return Message(RecordDict({"arrays": arrays, "config": ConfigRecord(config)}), node, kind)
