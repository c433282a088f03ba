"""Validation of names given on the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def require_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises ValueError for the first of `names` that is not `known`, and says what is."""
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
