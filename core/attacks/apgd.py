"""Auto-PGD (Croce & Hein 2020): PGD with an adaptive step size, in L-inf and L2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks.base import LogitsFn, ascent, check, margin, noise_in_ball, project, to_eight_bit

MOMENTUM = 0.75  # weight of the new step; the rest is that of the last one
# shares of the steps: first checkpoint, shortest interval, decrease of the interval
FIRST_CHECK, MIN_INTERVAL, INTERVAL_DECREASE = 0.22, 0.06, 0.03
RESTART = 1_000_003  # seeds of restarts lie this far apart
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": lambda logits, y: F.cross_entropy(logits, y, reduction="none"),
    "margin": margin,
}


@dataclass(frozen=True)
class APGD:
    """APGD: steps of 2 eps, halved and resumed at the best point where the loss rises rarely.

    `loss` is the cross-entropy (`ce`) or the `margin`: the best other logit minus the true one,
    in place of the difference-of-logits ratio, which needs three classes.
    Differs from the paper: the result is the misclassified point of the highest loss, or the point
    of the highest loss if none is misclassified; the paper takes the last misclassified point.
    """

    eps: float = 0.015
    steps: int = 50
    restarts: int = 1
    loss: str = "ce"
    norm: str = "linf"
    rho: float = 0.75
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, self.norm)
        if self.steps < 1 or self.restarts < 1 or not 0 < self.rho < 1:
            raise ValueError(f"steps, restarts or rho out of range in {self}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x.

        A scan keeps the first restart that is misclassified, else the one of the highest loss.
        """
        x, own = x.detach(), list(range(len(x)) if seeds is None else seeds)
        best = x
        highest = torch.full((len(x),), -torch.inf, device=x.device)
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for restart in range(self.restarts):
            found, loss, misread = self._run(
                logits_fn, x, y, [seed + RESTART * restart for seed in own]
            )
            take = ~done & (misread | (loss > highest))
            best = torch.where(take.view(-1, 1, 1, 1), found, best)
            highest = torch.where(take, loss, highest)
            done |= misread
            if done.all():
                break
        return to_eight_bit(x, best) if self.eight_bit else best

    def _run(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scans, losses (B,) and misclassified flags (B,) of one restart."""
        b, n = len(x), self.steps
        step = torch.full((b, 1, 1, 1), 2 * self.eps, device=x.device)
        start = noise_in_ball(x, self.eps, self.norm, seeds)
        if self.norm == "linf":  # scaled to the surface of the ball
            start = start * (self.eps / start.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12))
        now = before = (x + start).clamp(0, 1)
        grad, loss, wrong = self._evaluate(logits_fn, now, y)
        best, best_grad, best_loss = now, grad, loss
        found, misread, found_loss = now, wrong, torch.where(wrong, loss, -torch.inf)
        rises = torch.zeros(b, device=x.device)
        at_check, was_reduced = best_loss, torch.ones(b, dtype=torch.bool, device=x.device)
        until = interval = max(int(FIRST_CHECK * n), 1)
        for index in range(n):
            ahead = self._project(x, now + step * ascent(grad, self.norm))
            share = MOMENTUM if index else 1.0
            moved = now + share * (ahead - now) + (1 - share) * (now - before)
            before, now = now, self._project(x, moved)
            last = loss
            grad, loss, wrong = self._evaluate(logits_fn, now, y)
            further = wrong & (loss > found_loss)
            found = torch.where(further.view(-1, 1, 1, 1), now, found)
            found_loss = torch.where(further, loss, found_loss)
            misread = misread | wrong
            rises += (loss > last).float()
            better = loss > best_loss
            pick = better.view(-1, 1, 1, 1)
            best, best_grad = torch.where(pick, now, best), torch.where(pick, grad, best_grad)
            best_loss = torch.where(better, loss, best_loss)
            until -= 1
            if until:
                continue
            reduce = (rises <= self.rho * interval) | (~was_reduced & (best_loss <= at_check))
            pick = reduce.view(-1, 1, 1, 1)
            step = torch.where(pick, step / 2, step)
            now, grad = torch.where(pick, best, now), torch.where(pick, best_grad, grad)
            loss = torch.where(reduce, best_loss, loss)
            was_reduced, at_check, rises = reduce, best_loss, torch.zeros_like(rises)
            until = interval = max(
                interval - max(int(INTERVAL_DECREASE * n), 1), max(int(MIN_INTERVAL * n), 1)
            )
        return torch.where(misread.view(-1, 1, 1, 1), found, best), best_loss, misread

    def _project(self, x: Tensor, moved: Tensor) -> Tensor:
        return (x + project(moved - x, self.eps, self.norm)).clamp(0, 1)

    def _evaluate(self, logits_fn: LogitsFn, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss gradient, the loss (B,) and misclassified flags (B,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = logits_fn(x)
            loss = LOSSES[self.loss](logits, y)
            (grad,) = torch.autograd.grad(loss.sum(), x)
        return grad, loss.detach(), logits.detach().argmax(1) != y
