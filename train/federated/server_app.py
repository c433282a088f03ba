"""The server's side of the wire: ask, check, aggregate, keep. It never sees a scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from core.checkpoint import write_atomic
from train.federated import record, secagg, state, strategies
from train.federated.exchange import Answers, Failures, Mailbox, exchange
from train.federated.experiment import Experiment, read_experiment
from train.federated.roll import Roll
from train.federated.state import StateError
from train.federated.strategies import COUNT, SECONDS
from train.federated.table import Table
from train.federated.wire import PayloadError, pack, unpack
from train.progress import Progress

STATE, RESULT = "server.safetensors", "federated.json"
SHOWN = ("loss", "clean", "pgd", SECONDS)
PATIENCE = 3  # rounds in a row that may be skipped

app = ServerApp()


class FederationError(RuntimeError):
    """The federation cannot go on."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds of the run's experiment."""
    run = context.run_config
    experiment = read_experiment(str(run["preset"]), str(run["protocol"]), int(run["seed"]))
    Server(grid, experiment, Path(str(run["out"])), resume=bool(run["resume"])).run()


class Server:
    """Rounds of one experiment, kept in `out` after each, so that the next start goes on there.

    Raises:
        StateError: `out` holds rounds already and `resume` is off, or they are another
            experiment's.
    """

    def __init__(self, grid: Grid, experiment: Experiment, out: Path, *, resume: bool) -> None:
        self.grid, self.experiment, self.out = grid, experiment, out
        self.table = Table()
        self.roll = Roll(grid, experiment, self.table)
        self.log = Progress("federated", out / "log.jsonl")
        self.shared = experiment.shared(experiment.model())
        self.best = self.shared
        self.history: list[dict[str, Any]] = []
        self.joined: list[int] = []
        if (out / STATE).is_file():
            if not resume:
                raise StateError(f"{out / STATE} holds rounds already: --resume goes on with them")
            self._load()
        elif resume:
            self.table.say(f"nothing to resume in {out}: starts at round 1")

    @property
    def best_round(self) -> int:
        """The round whose mean validation score is highest, the first of equals; 0 before any."""
        scores = {r["round"]: r["summary"]["score"]["mean"] for r in self.history if r["summary"]}
        return max(scores, key=lambda now: scores[now]) if scores else 0

    def run(self) -> None:
        """All rounds that are left.

        Raises:
            FederationError: too few clients took part for three rounds in a row.
        """
        config, self_bytes = self.experiment.config, sum(t.nbytes for t in self.shared.values())
        self.table.say(
            f"experiment {self.experiment.digest[:12]}: {config.partition.num_clients} clients, "
            f"{config.num_rounds} rounds, {self_bytes / 1e6:.1f} MB to and from each client a round"
        )
        for now in range(len(self.history) + 1, config.num_rounds + 1):
            entry = self._round(now)
            self.history.append(entry)
            if self.best_round == now:
                self.best = self.shared
            self._save()
            self.log.write(**entry, of=config.num_rounds)
            self.table.say(record.line(now, config.num_rounds, entry))
            if len(self.history) >= PATIENCE and all(
                r["skipped"] for r in self.history[-PATIENCE:]
            ):
                raise FederationError(
                    f"{PATIENCE} rounds in a row were skipped: {entry['skipped']}"
                )
        self._result()
        self.table.close()

    def _round(self, now: int) -> dict[str, Any]:
        """Train, check, aggregate, evaluate (section III-D2)."""
        nodes = self._chosen(now)
        answers, failures = self._train(nodes, now)
        entry: dict[str, Any] = {"round": now, "asked": sorted(nodes), "skipped": ""}
        new = self._aggregate(answers, failures)
        entry["failures"] = {str(client): reason for client, reason in failures.items()}
        entry["trained"] = sorted(answers)
        if isinstance(new, str):
            return {**entry, "skipped": new, "loss": None, "clients": {}, "summary": {}}
        self.shared = new
        self.joined = sorted({*self.joined, *answers})
        counts = [int(str(a.content.metric_records["metrics"][COUNT])) for a in answers.values()]
        losses = [float(str(a.content.metric_records["metrics"]["loss"])) for a in answers.values()]
        entry["loss"] = float(np.average(losses, weights=counts))
        figures, failed = self._evaluate(now)
        entry["failures"] |= {f"{c} (validation)": reason for c, reason in failed.items()}
        entry["clients"] = {str(client): f for client, f in figures.items()}
        return {**entry, "summary": record.summary(figures) if figures else {}}

    def _chosen(self, now: int) -> dict[int, int]:
        """Client -> node of those asked in this round; seed and round decide who."""
        config = self.experiment.config
        late = config.late_clients if now < config.join_round else ()
        wanted = config.partition.num_clients - len(late) if now == 1 else config.min_clients
        present = {c: n for c, n in self.roll.call(wanted).items() if c not in late}
        count = min(len(present), max(config.min_clients, round(config.fraction * len(present))))
        picked = np.random.default_rng([self.experiment.seed, now]).permutation(sorted(present))
        return {c: present[c] for c in sorted(picked[:count].tolist())}

    def _train(self, nodes: Mapping[int, int], now: int) -> tuple[Answers, Failures]:
        """What the clients learned, each answer checked."""
        messages = self._messages(nodes, now, MessageType.TRAIN)
        self.table.ask(list(nodes), "trains")
        settings = self.experiment.config.strategy
        mailbox: Mailbox = self.grid
        if settings.secagg:
            heaviest = max(self.roll.scans.values(), default=1)
            mailbox = secagg.SecAggGrid(self.grid, self.shared, settings.secagg_range, heaviest)
        answers, failures = exchange(mailbox, messages, self.experiment.config.timeout, self._heard)
        for client, reply in list(answers.items()):
            try:
                self._check(client, reply.content)
            except PayloadError as error:
                del answers[client]
                failures[client] = str(error)
                self.table.heard(client, str(error))
        return answers, failures

    def _check(self, client: int, content: RecordDict) -> None:
        """Raises PayloadError where an answer is not what was asked for."""
        sender = f"client {client}"
        if "arrays" not in content.array_records or "metrics" not in content.metric_records:
            raise PayloadError(f"{sender} sent no arrays or no metrics")
        unpack(content.array_records["arrays"], self.shared, sender)
        metrics = content.metric_records["metrics"]
        if metrics.get(COUNT) != self.roll.scans.get(client):
            raise PayloadError(
                f"{sender} weighs itself {metrics.get(COUNT)} scans, "
                f"it said {self.roll.scans.get(client)}"
            )
        loss = metrics.get("loss")
        if not isinstance(loss, float) or not np.isfinite(loss):
            raise PayloadError(f"{sender} reports the loss {loss}")

    def _aggregate(self, answers: Answers, failures: Failures) -> dict[str, Tensor] | str:
        """The new experts, or why there are none."""
        fewest = self.experiment.config.min_clients
        if len(answers) < fewest:
            return f"{len(answers)} clients answered of the {fewest} that min_clients asks for"
        settings = self.experiment.config.strategy
        strategy = strategies.build(settings, pack(self.shared), len(answers))
        arrays, _ = strategy.aggregate_train(len(self.history) + 1, list(answers.values()))
        if arrays is None:
            return f"{settings.name} could not aggregate {len(answers)} answers"
        try:
            new = unpack(arrays, self.shared, "the aggregation")
        except PayloadError as error:
            return str(error)
        return secagg.applied(new, self.shared) if settings.secagg else new

    def _evaluate(self, now: int) -> tuple[dict[int, dict[str, float]], Failures]:
        """Figures of every client that has joined, with the new experts."""
        nodes = {c: n for c, n in self.roll.call(0).items() if c in self.joined}
        self.table.ask(list(nodes), "validates")
        answers, failures = exchange(
            self.grid,
            self._messages(nodes, now, MessageType.EVALUATE),
            self.experiment.config.timeout,
            self._heard,
        )
        figures = {}
        for client, reply in answers.items():
            found = {k: v for k, v in _figures(reply).items() if k != SECONDS}
            if COUNT not in found or not np.isfinite(list(found.values())).all():
                failures[client] = f"client {client} reports figures that are no numbers"
                continue
            figures[client] = found
        return figures, failures

    def _messages(self, nodes: Mapping[int, int], now: int, kind: str) -> dict[int, Message]:
        arrays = pack(self.shared)
        config = ConfigRecord({"round": now, "best": self.best_round, "joined": [*self.joined]})
        return {
            client: Message(RecordDict({"arrays": arrays, "config": config}), node, kind)
            for client, node in nodes.items()
        }

    def _heard(self, client: int, answer: Message | str) -> None:
        shown = answer if isinstance(answer, str) else _figures(answer)
        if isinstance(shown, dict):
            shown = {k: v for k, v in shown.items() if k in SHOWN}
        self.table.heard(client, shown)

    def _save(self) -> None:
        tensors = {f"last/{n}": t for n, t in self.shared.items()}
        tensors |= {f"best/{n}": t for n, t in self.best.items()}
        facts = {
            "digest": self.experiment.digest,
            "history": self.history,
            "joined": self.joined,
        }
        state.write(self.out / STATE, tensors, facts)

    def _load(self) -> None:
        tensors, facts = state.read(self.out / STATE, self.experiment.digest)
        self.history, self.joined = facts["history"], facts["joined"]
        self.shared = {n: tensors[f"last/{n}"] for n in self.shared}
        self.best = {n: tensors[f"best/{n}"] for n in self.shared}
        self.table.say(f"goes on after round {len(self.history)}")

    def _result(self) -> None:
        facts = {
            "preset": self.experiment.preset.name,
            "protocol": self.experiment.protocol,
            "seed": self.experiment.seed,
            "digest": self.experiment.digest,
            "best_round": self.best_round,
            "rounds": self.history,
        }
        write_atomic(
            self.out / RESULT, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
        )


def _figures(reply: Message) -> dict[str, float]:
    """All numbers of a reply's metrics."""
    metrics = reply.content.metric_records.get("metrics")
    return {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}
