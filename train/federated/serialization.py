"""Serialization: tensors to and from Flower's records, each checked on arrival."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

HEADER = 1024  # bytes that naming dtype and shape may take


class PayloadError(ValueError):
    """A payload with wrong names, shapes or numbers; the message names sender and cause."""


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Pack tensors into a record, in their order."""
    return ArrayRecord(
        {name: Array(t.detach().cpu().contiguous().numpy()) for name, t in tensors.items()}
    )


def unpack(record: ArrayRecord, like: Mapping[str, Tensor], sender: str) -> dict[str, Tensor]:
    """Unpack a record's tensors, with the names, shapes and dtypes of `like`, in its order.

    Sizes are compared before anything is decoded.

    Raises:
        PayloadError: a tensor is missing, unknown, too large, of another shape, or not finite.
    """
    unknown, missing = sorted(set(record) - set(like)), [n for n in like if n not in record]
    if unknown or missing:
        what = f"unknown tensor {unknown[0]!r}" if unknown else f"no tensor {missing[0]!r}"
        raise PayloadError(f"{sender} sent {what} ({len(unknown)} unknown, {len(missing)} missing)")
    tensors = {}
    for name, expected in like.items():
        array = record[name]
        most = 8 * expected.numel() + HEADER  # means come as float64 at most
        if len(array.data) > most or tuple(array.shape) != tuple(expected.shape):
            raise PayloadError(
                f"{sender} sent {name!r} of shape {tuple(array.shape)}, {len(array.data)} bytes, "
                f"expected {tuple(expected.shape)}"
            )
        tensors[name] = _decode(array, expected, name, sender)
    return tensors


def _decode(array: Array, expected: Tensor, name: str, sender: str) -> Tensor:
    try:
        values = np.asarray(array.numpy())
        if values.shape != tuple(expected.shape) or values.dtype.kind not in "fiu":
            raise ValueError(f"{values.dtype} {values.shape}")
        tensor = torch.from_numpy(np.ascontiguousarray(values)).reshape(expected.shape)
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise PayloadError(f"{sender} sent {name!r} as no array: {error}") from None
    tensor = tensor.to(expected.dtype)
    if not torch.isfinite(tensor).all():
        raise PayloadError(f"{sender} sent {name!r} with numbers that are not finite")
    return tensor.clone()
