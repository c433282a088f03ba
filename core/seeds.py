"""Seeds that follow from others. A generator of PyTorch's on a CPU knows 32 bits of its seed."""

from __future__ import annotations

import hashlib


def derived(seed: int, stream: str) -> int:
    """A seed in [0, 2^32) for another stream of the same scan's noise, as good as independent.

    Adding a large number would not do: two seeds that differ by 2^32 draw the same numbers.
    """
    digest = hashlib.blake2b(f"{int(seed)} {stream}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
