"""Start on Spaces with a shared GPU (ZeroGPU), which must find a function that uses it.

The page itself runs on the CPU, where a reading takes a tenth of a second. Elsewhere the package
`spaces` is absent and this module does nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable


def declare() -> Callable[[], None] | None:
    """Declare a GPU function that is never called; return None outside such a Space.

    Call it before anything initialises CUDA, that is before the weights are loaded.
    """
    if importlib.util.find_spec("spaces") is None:
        return None
    spaces = importlib.import_module("spaces")

    def unused() -> None: ...

    decorated: Callable[[], None] = spaces.GPU(unused)
    return decorated
