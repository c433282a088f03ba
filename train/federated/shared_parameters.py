"""Shared and personal tensors of a network: what is sent to the server, what stays."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.moe import is_personal

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"  # without effect where momentum is set; a count has no mean


def select_shared(model: nn.Module, share: str, batch_norm: str) -> dict[str, Tensor]:
    """Return the tensors that a client sends and the server averages (Eq. 23), in model order.

    `share` 'experts' leaves out the attention, 'all' sends it too, 'none' sends nothing;
    `batch_norm` 'silo' leaves out batch-norm's statistics, 'local' its weights as well.
    """
    if share == "none":
        return {}
    unshared = _find_unshared_norms(model, batch_norm)
    return {
        name: value
        for name, value in model.state_dict().items()
        if (share == "all" or not is_personal(name))
        and name not in unshared
        and name.split(".")[-1] != COUNTER
    }


def select_personal(model: nn.Module, share: str, batch_norm: str) -> dict[str, Tensor]:
    """Return the tensors that stay on the client's disk: all that are not shared."""
    shared = select_shared(model, share, batch_norm)
    return {name: value for name, value in model.state_dict().items() if name not in shared}


def is_statistic(name: str) -> bool:
    """Return True if a tensor's name is that of batch-norm's statistics or of their counter."""
    return name.split(".")[-1] in (*STATISTICS, COUNTER)


def _find_unshared_norms(model: nn.Module, batch_norm: str) -> set[str]:
    return {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if isinstance(module, _BatchNorm) and batch_norm != "shared"
        for name in (module.state_dict() if batch_norm == "local" else STATISTICS)
    }
