"""Memoization of module calls with equal inputs, inside a context."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Tensor])
# module and method, what it was asked, what it answered; each thread has its own
_known: ContextVar[list[Any] | None] = ContextVar("known", default=None)


@contextmanager
def shared_computation() -> Iterator[None]:
    """Reuse results of methods marked `once` inside this context, where no gradient is recorded."""
    token = _known.set([])
    try:
        yield
    finally:
        _known.reset(token)


def once(method: Method) -> Method:
    """Marks a module's method from tensors to a tensor."""

    @functools.wraps(method)
    def remembering(module: Any, *asked: Tensor) -> Any:
        known, who = _known.get(), (module, method.__name__, len(asked))
        if known is None or torch.is_grad_enabled():
            return method(module, *asked)
        for whom, before, answer in known:
            if whom == who and all(map(torch.equal, before, asked)):
                return answer
        known.append((who, asked, method(module, *asked)))
        return known[-1][2]

    return cast(Method, remembering)
