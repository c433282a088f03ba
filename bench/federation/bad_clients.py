"""The clients' app with one client among them that answers otherwise than it has learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from train.federated.client import client_app
from train.federated.serialization import pack

Tensors = dict[str, Tensor]
ChangeFn = Callable[[Tensors, int], Tensors]  # of what was learned, and of the round
LOUD = 10.0


def altered(change: ChangeFn, client: int, only: int = 0) -> ClientAppCallable:
    """The app in which `client` sends what `change` makes of its tensors, in all rounds or one."""

    def app(message: Message, context: Context) -> Message:
        reply: Message = client_app.app(message, context)
        is_its = context.node_config["partition-id"] == client and reply.has_content()
        if not is_its or message.metadata.message_type != "train":
            return reply
        now = int(str(message.content.config_records["config"]["round"]))
        if now == only or not only:
            arrays = reply.content.array_records["arrays"]
            learned = {name: torch.from_numpy(a.numpy().copy()) for name, a in arrays.items()}
            reply.content["arrays"] = pack(change(learned, now))
        return reply

    return app


def noise(learned: Tensors, now: int) -> Tensors:
    """Gaussian noise, each tensor's `LOUD` times as large as the tensor (root mean square)."""
    generator = torch.Generator().manual_seed(now)
    return {
        name: LOUD * t.square().mean().sqrt() * torch.randn(t.shape, generator=generator)
        for name, t in learned.items()
    }


def not_finite(learned: Tensors, _: int) -> Tensors:
    """The first tensor is NaN."""
    first = next(iter(learned))
    return {**learned, first: learned[first] * float("nan")}


def misshapen(learned: Tensors, _: int) -> Tensors:
    """The first tensor has another shape."""
    return {**learned, next(iter(learned)): torch.zeros(1)}


def down(_: Tensors, now: int) -> Tensors:
    """No answer: the client's program breaks."""
    raise RuntimeError(f"the power went in round {now}")
