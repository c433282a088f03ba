"""In-process runtime: Flower's Grid without servers, sockets or Ray, one client at a time.

A message is handled when its reply is pulled, in the order of sending: deterministic, and a run can
be stopped between two clients.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from flwr.supercore.run import Run

# private to Flower, but required for a Message made outside Flower's own processes
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
FAILED_CODE = 1  # an error's code: the client's app raised


class InProcessGrid(Grid):
    """Nodes 1 to N, each with its own context, all running `client_app` in this process."""

    def __init__(
        self,
        client_app: ClientAppCallable,
        run_config: Mapping[str, Any],
        node_configs: Iterable[Mapping[str, Any]],
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 1
        self._app = client_app
        self._waiting: dict[str, Message] = {}
        self._sent = 0
        self._run = Run.create_empty(RUN_ID)
        self._contexts = {
            node: Context(RUN_ID, node, dict(config), RecordDict(), dict(run_config))
            for node, config in enumerate(node_configs, start=1)
        }

    def set_run(self, run: Run) -> None:
        """Set the run that the grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that the grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to one node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        """Return all nodes; none disconnects."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages; each is copied when it is handled, so that one copy exists at a time."""
        names = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
            self._waiting[str(self._sent)] = message
            names.append(str(self._sent))
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Handle the first waiting message of those named and return its reply."""
        for name in message_ids:
            if name in self._waiting:
                return [self._answer(self._waiting.pop(name))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return all replies, in the order of the messages."""
        names = self.push_messages(messages)
        return [reply for name in names for reply in self.pull_messages([name])]

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            # engines serialize; clients may change a message's content
            return copy.deepcopy(self._app(copy.deepcopy(message), context))
        except Exception as error:  # as on an engine: an exception becomes an error reply
            return Message(Error(FAILED_CODE, f"{type(error).__name__}: {error}"), reply_to=message)
