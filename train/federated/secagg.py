"""Secure aggregation (SecAgg+): the server learns the sum of the updates and no single one.

Flower offers the protocol for its older API only; a client mod and a grid adapt it to messages.
Updates are summed, and each number must lie within a range: the protocol would clip it silently.
The server is assumed semi-honest; sample counts and metrics are sent in clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import FitIns, Parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid
from torch import Tensor

from train.federated.metrics import SCAN_COUNT
from train.federated.serialization import PayloadError

# shares of the clients: holders of a share of each key, and survivors needed to recover it
KEY_SHARES, RECONSTRUCTION_THRESHOLD = 1.0, 0.6
ABORTED_CODE = 3  # an error's code


def compute_update(
    new: Mapping[str, Tensor], old: Mapping[str, Tensor], limit: float
) -> dict[str, Tensor]:
    """Return the tensors' difference from the round's, which is sent in their place.

    Raises:
        PayloadError: a value of it exceeds `limit`.
    """
    delta = {name: value - old[name] for name, value in new.items()}
    largest = max(delta, key=lambda name: float(delta[name].abs().max()))
    peak = float(delta[largest].abs().max())
    if not peak <= limit:
        raise PayloadError(
            f"the update of {largest!r} is {peak:.3g}, beyond secagg_range {limit:g}: raise it, "
            "or lower lr"
        )
    return delta


def add_update(delta: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors plus an aggregated update."""
    return {name: old[name] + value for name, value in delta.items()}


def client_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Pass the protocol's messages to Flower's mod, which calls our app for the training."""
    is_train = message.metadata.message_type == MessageType.TRAIN
    if not is_train or RECORD_KEY_CONFIGS not in message.content.config_records:
        return call_next(message, context)

    def train(inner: Message, inner_context: Context) -> Message:
        reply = call_next(inner, inner_context)
        if reply.has_error():
            raise PayloadError(reply.error.reason or "failed")
        metrics = dict(reply.content.metric_records["metrics"])
        content = {
            "fitres.parameters": reply.content.array_records["arrays"],
            "fitres.num_examples": MetricRecord(
                {"num_examples": int(str(metrics.pop(SCAN_COUNT)))}
            ),
            "fitres.metrics": ConfigRecord(cast(Any, metrics)),
            "fitres.status": ConfigRecord({"code": 0, "message": ""}),
        }
        return Message(RecordDict(cast(Any, content)), reply_to=inner)

    try:
        return secaggplus_mod(message, context, train)
    except PayloadError as error:
        return Message(Error(ABORTED_CODE, str(error)), reply_to=message)


class SecAggGrid:
    """Grid that sends training messages through the protocol; all replies carry the same mean."""

    def __init__(
        self, grid: Grid, spec: Mapping[str, Tensor], limit: float, max_weight: float
    ) -> None:
        self._grid = grid
        self._spec = spec
        self._limit, self._max_weight = limit, max_weight
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the whole protocol; the replies can be pulled afterwards."""
        sent = {m.metadata.dst_node_id: m for m in messages}
        for number, message in enumerate(sent.values(), start=1):
            message.metadata.__dict__["_message_id"] = f"secagg-{number}"
        self._replies = {m.metadata.message_id: self._build_abort(m) for m in sent.values()}
        for node, content in self._run(sent).items():
            self._replies[sent[node].metadata.message_id] = Message(content, reply_to=sent[node])
        return list(self._replies)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to the named messages."""
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    @staticmethod
    def _build_abort(message: Message) -> Message:
        reason = "dropped out of secure aggregation, or too many others did"
        return Message(Error(ABORTED_CODE, reason), reply_to=message)

    def _run(self, sent: Mapping[int, Message]) -> dict[int, RecordDict]:
        outcome: dict[str, Any] = {}

        def aggregate_fit(_: int, results: Any, __: Any) -> tuple[None, dict[str, Any]]:
            outcome["results"] = results
            return None, {}

        def configure_fit(*_: Any) -> list[tuple[SimpleNamespace, FitIns]]:
            empty = FitIns(Parameters([], ""), {})
            return [(SimpleNamespace(node_id=node), empty) for node in sent]

        main = RecordDict(
            {
                MAIN_CONFIGS_RECORD: ConfigRecord({"current_round": 1}),
                MAIN_PARAMS_RECORD: ArrayRecord(),
            }
        )
        context = SimpleNamespace(
            state=main,
            strategy=SimpleNamespace(configure_fit=configure_fit, aggregate_fit=aggregate_fit),
            client_manager=SimpleNamespace(num_available=lambda: len(sent)),
            history=None,
        )
        state = WorkflowState()
        workflow = SecAggPlusWorkflow(
            KEY_SHARES,
            RECONSTRUCTION_THRESHOLD,
            max_weight=self._max_weight,
            clipping_range=self._limit,
        )
        stages = (
            workflow.setup_stage,
            workflow.share_keys_stage,
            workflow.collect_masked_vectors_stage,
            workflow.unmask_stage,
        )
        for number, stage in enumerate(stages):
            if not stage(self._grid, cast(Any, context), state):
                return {}
            if number == 0:
                state.nid_to_fitins = {node: m.content for node, m in sent.items()}
        return self._build_contents(outcome.get("results", []))

    def _build_contents(self, results: Any) -> dict[int, RecordDict]:
        contents = {}
        for proxy, result in results:
            mean = parameters_to_ndarrays(result.parameters)
            arrays = {
                name: Array(np.asarray(value, dtype=np.float32))
                for name, value in zip(self._spec, mean, strict=True)
            }
            metrics = MetricRecord({SCAN_COUNT: result.num_examples, **result.metrics})
            contents[proxy.node_id] = RecordDict(
                {"arrays": ArrayRecord(arrays), "metrics": metrics}
            )
        return contents
