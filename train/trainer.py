"""Training loop of one model: sampling, optimiser, EMA, early stop, resuming.

No transport and no knowledge of the model: a phase passes its loss and its validation.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from train.checkpointing import read_state, write_state
from train.data.dataset import Sample, ScanDataset
from train.device import pick_device

LossFn = Callable[[nn.Module, Sample, torch.Generator], Tensor]


@dataclass(frozen=True)
class ScheduledLoss:
    """Loss that depends on the share of training that is done, in [0, 1]: its last argument."""

    function: Callable[[nn.Module, Sample, torch.Generator, float], Tensor]

    def at(self, progress: float) -> LossFn:
        """Return the loss at a share of training."""
        return partial(self._measure, progress)

    def _measure(
        self, progress: float, model: nn.Module, sample: Sample, generator: torch.Generator
    ) -> Tensor:
        return self.function(model, sample, generator, progress)


Loss = LossFn | ScheduledLoss
ValidateFn = Callable[[nn.Module], dict[str, float]]
ReportFn = Callable[[str], None]
ProgressFn = Callable[[int, int, float], None]

# timm's names: its "muon" has no Nesterov momentum
OPTIMIZERS = {"adamw": "adamw", "muon": "nmuon"}


def show_nothing(step: int, total: int, loss: float) -> None:
    """Show nothing: the default progress function."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of `fit`; an epoch draws as many scans as there are, at most `samples`.

    0 epochs leave a model unchanged. Training stops after `patience` epochs without improvement
    (0: never).
    `optimizer` is 'adamw', or 'muon': orthogonalised momentum (Jordan et al. 2024) for matrices,
    AdamW for the rest, with steps scaled so that learning rates are comparable.
    """

    epochs: int = 10
    samples: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    ema: float = 0.998
    patience: int = 0
    clip: float = 1.0
    seed: int = 0
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or min(self.samples, self.patience) < 0:
            raise ValueError(
                f"batch_size must be at least 1, epochs, samples and patience 0 or more, got {self}"
            )
        if not self.lr > 0 or not 0 <= self.ema < 1:
            raise ValueError(f"lr must be positive and ema in [0, 1), got {self}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be adamw or muon, got {self.optimizer!r}")


def fit(
    model: nn.Module,
    data: ScanDataset,
    loss_fn: Loss,
    config: FitConfig,
    *,
    validate: ValidateFn,
    checkpoint: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    report: ReportFn = print,
    progress: ProgressFn = show_nothing,
    device: torch.device | None = None,
    span: tuple[float, float] = (0.0, 1.0),
) -> list[dict[str, float]]:
    """Train `model` in place; it ends with the EMA weights of its best epoch, in eval mode.

    `validate` returns metrics; 'score' (higher is better) selects the epoch. With `checkpoint`, the
    state is written after every epoch and every two minutes, and a later call resumes from it; a
    checkpoint with other `settings` is refused. `span` is the part of the learning rate's schedule
    that this call covers: one round of a federation.

    Returns:
        One dictionary of metrics per epoch.

    Raises:
        ValueError: there are no scans, or the checkpoint is damaged or belongs to other settings.
        OSError: the checkpoint cannot be written; the previous one is kept.
        FloatingPointError: the loss is not a number.
    """
    if len(data) == 0:
        raise ValueError("no scans to train on")
    device = device or pick_device()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    best = copy.deepcopy(ema)
    optimizer = create_optimizer_v2(
        model,
        OPTIMIZERS[config.optimizer],
        lr=config.lr,
        weight_decay=config.weight_decay,
        filter_bias_and_bn=False,
    )
    samples = min(config.samples or len(data), len(data))
    steps_per_epoch = max(1, samples // config.batch_size)
    total = steps_per_epoch * config.epochs
    history: list[dict[str, float]] = []
    step, epoch_loss = 0, 0.0
    models = {"model": model, "ema": ema, "best": best}
    identity = json.dumps({**asdict(config), "n": len(data), **(settings or {})}, sort_keys=True)

    def save() -> None:
        if checkpoint is not None:
            facts = {
                "identity": identity,
                "step": step,
                "epoch_loss": epoch_loss,
                "history": history,
            }
            write_state(checkpoint, models, optimizer, facts)

    if checkpoint is not None and checkpoint.is_file():
        facts = read_state(checkpoint, models, optimizer, identity)
        step, epoch_loss, history = facts["step"], facts["epoch_loss"], facts["history"]
        report(f"resumed at step {step} of {total}")

    saved = time.monotonic()
    has_ended = step % steps_per_epoch == 0 and _has_stalled(history, config.patience)
    for now in range(step, step if has_ended else total):
        index, generator = draw_rows(data.weights, config, now)
        progressed = span[0] + (span[1] - span[0]) * now / total
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _compute_lr_factor(progressed, config.warmup)
        sample = data.sample(index, device)
        model.train()
        # only dropout draws from the global state
        torch.manual_seed(config.seed * 1_000_003 + now)
        current = loss_fn.at(progressed) if isinstance(loss_fn, ScheduledLoss) else loss_fn
        loss = current(model, sample, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        _update_ema(ema, model, min(config.ema, (now + 1) / (now + 10)))
        epoch_loss += loss.item()
        step = now + 1
        if not math.isfinite(epoch_loss):  # before it is saved
            raise FloatingPointError(f"the loss is {epoch_loss} at step {step}: lower lr")
        done = step % steps_per_epoch == 0
        if done:
            figures = {
                "epoch": len(history) + 1,
                "loss": epoch_loss / steps_per_epoch,
                **validate(ema),
            }
            history.append(figures)
            epoch_loss = 0.0
            if figures["score"] >= max(h["score"] for h in history):
                best.load_state_dict(ema.state_dict())
            report(_format_line(figures, config.epochs))
        progress(step, total, loss.item())
        if done or time.monotonic() - saved > 120:
            save()
            saved = time.monotonic()
        if done and _has_stalled(history, config.patience):
            report(f"stopped early: no improvement for {config.patience} epochs")
            break
    model.load_state_dict(best.state_dict())
    model.eval()
    return history


def draw_rows(weights: Tensor, config: FitConfig, step: int) -> tuple[Tensor, torch.Generator]:
    """Draw the rows (B,) of a step, with replacement; return the step's generator after it too."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    rows = torch.multinomial(weights, config.batch_size, replacement=True, generator=generator)
    return rows, generator


def _compute_lr_factor(progress: float, warmup: float) -> float:
    if progress < warmup:
        return max(0.05, progress / warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.no_grad()
def _update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _has_stalled(history: list[dict[str, float]], patience: int) -> bool:
    if not patience or not history:
        return False
    best = max(range(len(history)), key=lambda i: history[i]["score"])
    return len(history) - 1 - best >= patience


def _format_line(figures: dict[str, float], epochs: int) -> str:
    rest = "  ".join(f"{k} {v:.4f}" for k, v in figures.items() if k != "epoch")
    return f"epoch {int(figures['epoch'])}/{epochs}  {rest}"
