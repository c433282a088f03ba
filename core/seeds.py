"""Seeds of independent noise streams; PyTorch's CPU generator uses only 32 bits of a seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, stream: str) -> int:
    """Derive a seed in [0, 2^32) for another noise stream of the same scan.

    Adding a large number would not do: two seeds that differ by 2^32 draw the same numbers.
    """
    digest = hashlib.blake2b(f"{int(seed)} {stream}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
