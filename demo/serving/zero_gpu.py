"""Spaces with a shared GPU start only if something asks for it; nothing of this page does.

A reading takes a tenth of a second on two cores, and a visitor's daily minutes of GPU are few: the
page runs on the Space's CPU. Elsewhere the package `spaces` is absent and this does nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable


def declare() -> Callable[[], None] | None:
    """Declares a function that could use a GPU and is never called; None outside such a Space.

    To be called before anything initialises CUDA, that is before the weights are loaded.
    """
    if importlib.util.find_spec("spaces") is None:
        return None
    spaces = importlib.import_module("spaces")

    def unused() -> None: ...

    decorated: Callable[[], None] = spaces.GPU(unused)
    return decorated
