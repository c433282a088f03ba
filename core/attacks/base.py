"""Base of all attacks: step, loss gradient, projection on the eps ball, and 8-bit rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.seeds import derive_seed

STREAM = "attack"  # apart from the purifier's noise of the same seed
LogitsFn = Callable[[Tensor], Tensor]
NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Step:
    """One point of an attack's trajectory, for B scans."""

    index: int
    x_adv: Tensor  # (B, C, H, W) in [0, 1]
    loss: Tensor  # (B,) cross-entropy of the attacked label, in nats
    probabilities: Tensor  # (B, num_classes)


def check(eps: float, norm: str) -> None:
    """Raise ValueError for an invalid eps or norm."""
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be at least 0 and finite, got {eps}")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")


def evaluate(logits_fn: LogitsFn, x: Tensor, y: Tensor, index: int) -> Step:
    """Evaluate the step at `x` without a gradient."""
    with torch.no_grad():
        logits = logits_fn(x)
    return Step(index, x, F.cross_entropy(logits, y, reduction="none"), logits.softmax(1))


def gradient(logits_fn: LogitsFn, x: Tensor, y: Tensor, index: int) -> tuple[Tensor, Step]:
    """Return the gradient of each scan's cross-entropy by its pixels, and the step at `x`.

    Parameters' `.grad` and the training flag stay as they were.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_fn(x)
        loss = F.cross_entropy(logits, y, reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), x)
    return grad, Step(index, x.detach(), loss.detach(), logits.detach().softmax(1))


def project(delta: Tensor, eps: float, norm: str) -> Tensor:
    """Project perturbations on the ball of radius eps around 0, per scan (Eq. 3)."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length: Tensor = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return delta * (eps / length).clamp_max(1).view(-1, 1, 1, 1)


def ascent(grad: Tensor, norm: str) -> Tensor:
    """Return the steepest unit direction: the sign in L-inf, the normalised gradient in L2."""
    if norm == "linf":
        return grad.sign()
    length: Tensor = grad.flatten(1).norm(dim=1).clamp_min(1e-12)
    return grad / length.view(-1, 1, 1, 1)


def noise_in_ball(x: Tensor, eps: float, norm: str, seeds: Sequence[int]) -> Tensor:
    """Draw a random start inside the ball, one seed per scan, independent of the batch."""
    if len(seeds) != len(x):
        raise ValueError(f"need one seed per scan, got {len(seeds)} for {len(x)}")
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, STREAM))
        if norm == "linf":
            draws.append((torch.rand(x.shape[1:], generator=generator) * 2 - 1) * eps)
        else:
            direction = torch.randn(x.shape[1:], generator=generator)
            radius = torch.rand(1, generator=generator) ** (1 / direction.numel())
            draws.append(direction / direction.norm() * radius * eps)
    return torch.stack(draws).to(x)


def to_eight_bit(x: Tensor, x_adv: Tensor) -> Tensor:
    """Round the perturbation of x_adv toward zero to multiples of 1 / 255.

    Where x lies on the 8-bit grid, so does the result: saved as PNG and opened again it is
    identical, and it never leaves the ball that x_adv was in.
    """
    # 1e-3 of a level forgives float32's error in (x + k / 255) - x, which would lose a whole level
    levels = ((x_adv - x) * 255).abs().add(1e-3).floor() * (x_adv - x).sign()
    return (((x * 255).round() + levels).clamp(0, 255) / 255).to(x.dtype)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other logit minus the true one, (B,): above 0 where misclassified."""
    true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - true


def margin_gradient(
    logits_fn: LogitsFn, x: Tensor, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of each scan's margin by its pixels, and the logits (B, C).

    `y` (B,) are by default the classes that the logits name.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        # a copy: PyTorch's counter of operations cannot stand a leaf among a module's inputs
        logits = logits_fn(x.clone())
        lead = margin(logits, logits.detach().argmax(1) if y is None else y)
        (grad,) = torch.autograd.grad(lead.sum(), x)
    return grad, logits.detach()
