"""Memoization of module calls with equal inputs, inside a context."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])
# (module, method, number of arguments), arguments, result; each thread has its own list
_known: ContextVar[list[Any] | None] = ContextVar("known", default=None)


@contextmanager
def shared_computation(known: list[Any] | None = None) -> Iterator[None]:
    """Reuse results of methods marked `once` inside this context, where no gradient is recorded.

    Contexts that are given the same list `known`, empty at first, share their results.
    """
    token = _known.set([] if known is None else known)
    try:
        yield
    finally:
        _known.reset(token)


def once(method: Method) -> Method:
    """Memoize a module's method of tensors within `shared_computation`."""

    @functools.wraps(method)
    def wrapper(module: Any, *arguments: Tensor) -> Any:
        known, call = _known.get(), (module, method.__name__, len(arguments))
        if known is None or torch.is_grad_enabled():
            return method(module, *arguments)
        for other, before, answer in known:
            if other == call and all(map(torch.equal, before, arguments)):
                return answer
        known.append((call, arguments, method(module, *arguments)))
        return known[-1][2]

    return cast(Method, wrapper)
