"""Shared and personal tensors: of a mixture the experts travel, of other networks all."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.moe import is_personal

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"  # steers nothing where momentum is set, and is no mean


def shared_state(model: nn.Module, share: str, batch_norm: str) -> dict[str, Tensor]:
    """Return the tensors that a client sends and the server averages (Eq. 23), in order.

    `share` 'experts' keeps the attention at home, 'all' sends it too, 'none' sends nothing;
    `batch_norm` 'silo' keeps batch-norm's statistics at home, 'local' its weights as well.
    """
    if share == "none":
        return {}
    at_home = _at_home(model, batch_norm)
    return {
        name: value
        for name, value in model.state_dict().items()
        if (share == "all" or not is_personal(name))
        and name not in at_home
        and name.split(".")[-1] != COUNTER
    }


def personal_state(model: nn.Module, share: str, batch_norm: str) -> dict[str, Tensor]:
    """Return the tensors that stay on the client's disk."""
    shared = shared_state(model, share, batch_norm)
    return {name: value for name, value in model.state_dict().items() if name not in shared}


def _at_home(model: nn.Module, batch_norm: str) -> set[str]:
    return {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if isinstance(module, _BatchNorm) and batch_norm != "shared"
        for name in (module.state_dict() if batch_norm == "local" else STATISTICS)
    }
