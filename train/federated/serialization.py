"""Serialization of tensors as Flower's records, with checks of everything received."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

HEADER_BYTES = 1024  # limit for dtype and shape


class PayloadError(ValueError):
    """An invalid payload; the message names its sender and the cause."""


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return a record of the tensors, in their order."""
    return ArrayRecord(
        {name: Array(t.detach().cpu().contiguous().numpy()) for name, t in tensors.items()}
    )


def unpack(record: ArrayRecord, spec: Mapping[str, Tensor], sender: str) -> dict[str, Tensor]:
    """Return the tensors of a record, with the names, shapes and dtypes of `spec`, in its order.

    Sizes are compared before anything is decoded.

    Raises:
        PayloadError: a tensor is missing, unknown, too large, of another shape, or not finite.
    """
    unknown, missing = sorted(set(record) - set(spec)), [n for n in spec if n not in record]
    if unknown or missing:
        problem = f"unknown tensor {unknown[0]!r}" if unknown else f"no tensor {missing[0]!r}"
        raise PayloadError(
            f"{sender} sent {problem} ({len(unknown)} unknown, {len(missing)} missing)"
        )
    tensors = {}
    for name, expected in spec.items():
        array = record[name]
        max_bytes = 8 * expected.numel() + HEADER_BYTES  # means come as float64 at most
        if len(array.data) > max_bytes or tuple(array.shape) != tuple(expected.shape):
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
        raise PayloadError(f"{sender} sent an invalid array {name!r}: {error}") from None
    tensor = tensor.to(expected.dtype)
    if not torch.isfinite(tensor).all():
        raise PayloadError(f"{sender} sent {name!r} with values that are not finite")
    return tensor.clone()
