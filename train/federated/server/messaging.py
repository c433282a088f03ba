"""Messaging: sends messages, collects replies until a timeout, reports failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flwr.app import Message

POLL = 0.2  # seconds between two looks at the mailbox
Answers = dict[int, Message]
Failures = dict[int, str]
HeardFn = Callable[[int, Message | str], str | None]


class Mailbox(Protocol):
    """The part of Flower's Grid that an exchange uses."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; their ids in the same order, empty where one cannot be sent."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull the replies that have arrived for some of the messages."""


def exchange(
    mailbox: Mailbox,
    messages: Mapping[int, Message],
    timeout: float,
    heard: HeardFn,
) -> tuple[Answers, Failures]:
    """Sends one message to each client and collects what comes back within `timeout` seconds.

    `heard` is called as each answer, or the reason why there is none, arrives; it may return why an
    answer does not count.

    Returns:
        Replies and failures by client, in order of their numbers: whoever was first, the last bits
        of a sum stay the same.
    """
    names = list(mailbox.push_messages(list(messages.values()))) or [""] * len(messages)
    waiting = {name: client for name, client in zip(names, messages, strict=True) if name}
    answers: Answers = {}
    failures: Failures = {}

    def failed(client: int, reason: str) -> None:
        failures[client] = reason
        heard(client, reason)

    for client in set(messages) - set(waiting.values()):
        failed(client, "could not be reached")
    deadline = time.monotonic() + timeout
    while waiting:
        replies = list(mailbox.pull_messages(list(waiting)))
        for reply in replies:
            client = waiting.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                failed(client, reply.error.reason or f"error {reply.error.code}")
            elif reason := heard(client, reply):
                failures[client] = reason
            else:
                answers[client] = reply
        if not replies:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
    for client in waiting.values():
        failed(client, f"did not answer within {timeout:g} s")
    return dict(sorted(answers.items())), dict(sorted(failures.items()))
