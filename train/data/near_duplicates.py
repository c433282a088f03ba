"""Near-duplicates: scans alike at the size of a thumbnail, mirror images and turned ones too.

Two scans are near-duplicates when their 24 x 24 grey thumbnails, zero mean and unit norm, correlate
above .97 in any orientation: the sources hold scans beside their mirror images, left to right and
upside down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 24
MIN_CORRELATION = 0.97


def compute_thumbnails(scans: np.ndarray) -> np.ndarray:
    """Return zero-mean, unit-norm thumbnails (N, 576), float32, of uint8 scans (N, H, W)."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = [Image.fromarray(s).resize(size, Image.Resampling.BILINEAR) for s in scans]
    flat = np.stack([np.asarray(s, dtype=np.float32).ravel() for s in small])
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def list_orientations(thumbs: np.ndarray) -> list[np.ndarray]:
    """Return all eight orientations of thumbnails (N, 576), the unchanged one first."""
    square = thumbs.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    quarters = [np.rot90(square, k, axes=(1, 2)) for k in range(4)]
    both = [view for q in quarters for view in (q, q[:, :, ::-1])]
    return [np.ascontiguousarray(view).reshape(thumbs.shape) for view in both]


def find_pairs(thumbs: np.ndarray, threshold: float = MIN_CORRELATION) -> Iterator[tuple[int, int]]:
    """Yield the pairs i <= j of scans that correlate above `threshold` in any orientation."""
    forms = list_orientations(thumbs)
    for start in range(0, len(thumbs), 512):
        block = thumbs[start : start + 512]
        # of each pair once: the inverse of a turn is one of the forms too
        close = np.maximum.reduce([block @ form[start:].T for form in forms]) > threshold
        for i, j in zip(*np.nonzero(close), strict=True):
            if i <= j:
                yield start + int(i), start + int(j)


def find_groups(thumbs: np.ndarray, threshold: float = MIN_CORRELATION) -> np.ndarray:
    """Find the connected components of scans that correlate above `threshold` in any orientation.

    Returns:
        int64 (N,): the smallest position in each scan's group.
    """
    return connect(len(thumbs), find_pairs(thumbs, threshold))


def connect(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return the smallest position in each of n items' connected component, int64 (n,)."""
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for i, j in pairs:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(n)])
