"""Message exchange with the clients: replies until a timeout, failures with their reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flwr.app import Message

POLL_SECONDS = 0.2
Replies = dict[int, Message]
Failures = dict[int, str]
ReplyFn = Callable[[int, Message | str], str | None]


class Mailbox(Protocol):
    """The part of Flower's Grid that an exchange needs."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; return their ids in the same order, empty where one cannot be sent."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived for the named messages."""


def exchange(
    mailbox: Mailbox,
    messages: Mapping[int, Message],
    timeout: float,
    on_reply: ReplyFn,
) -> tuple[Replies, Failures]:
    """Send messages, collect replies until `timeout` seconds have passed, and report failures.

    `on_reply` is called as each reply arrives, or with the reason why there is none; it may return
    a reason to reject the reply.

    Returns:
        Replies and failures by client, in the order of their numbers, so that the order of arrival
        does not change the last bits of a sum.
    """
    names = list(mailbox.push_messages(list(messages.values()))) or [""] * len(messages)
    waiting = {name: client for name, client in zip(names, messages, strict=True) if name}
    replies: Replies = {}
    failures: Failures = {}

    def record_failure(client: int, reason: str) -> None:
        failures[client] = reason
        on_reply(client, reason)

    for client in set(messages) - set(waiting.values()):
        record_failure(client, "could not be reached")
    deadline = time.monotonic() + timeout
    while waiting:
        arrived = list(mailbox.pull_messages(list(waiting)))
        for reply in arrived:
            client = waiting.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                record_failure(client, reply.error.reason or f"error {reply.error.code}")
            elif reason := on_reply(client, reply):
                failures[client] = reason
            else:
                replies[client] = reply
        if not arrived:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    for client in waiting.values():
        record_failure(client, f"did not answer within {timeout:g} s")
    return dict(sorted(replies.items())), dict(sorted(failures.items()))
