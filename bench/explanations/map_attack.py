"""Attack on the explanation: the map is moved off the tumour while the answer stays.

After Ghorbani et al. 2019, with the energy in the mask in place of their top pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks.base import ascent, check, noise_in_ball, project
from core.classifier import Calibrated
from core.explanation import explain

LookFn = Callable[[Tensor], tuple[Tensor, Tensor]]  # objective (B,), log-odds of the answer (B,)
MIN_SUM = 1e-12  # keeps logarithms finite


@dataclass(frozen=True)
class MapAttack:
    """PGD that raises an objective under a condition: the log-odds of the answer stay above 0.

    Where they fall below `slack`, a step raises them instead. Sign steps shrink evenly from `first`
    times eps to 0. The result is the point of the highest objective that keeps the answer, the scan
    itself if no other does.
    """

    eps: float = 0.015
    steps: int = 50
    first: float = 0.5
    slack: float = 0.2

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.steps < 1 or self.first <= 0 or self.slack < 0:
            raise ValueError(f"steps, first or slack out of range in {self}")

    def __call__(self, look: LookFn, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x."""
        x = x.detach()
        found = x
        with torch.no_grad():
            highest, _ = look(x)
        now = (x + noise_in_ball(x, self.eps, "linf", seeds)).clamp(0, 1)
        for index in range(self.steps + 1):
            with torch.enable_grad():
                z = now.detach().requires_grad_()
                objective, odds = look(z)
                goal = torch.where(odds > self.slack, objective, odds)
                (grad,) = torch.autograd.grad(goal.sum(), z)
            objective, odds = objective.detach(), odds.detach()
            better = (odds > 0) & (objective > highest)
            found = torch.where(better.view(-1, 1, 1, 1), now, found)
            highest = torch.where(better, objective, highest)
            step = self.first * self.eps * (1 - index / self.steps)
            now = (x + project(now + step * ascent(grad, "linf") - x, self.eps, "linf")).clamp(0, 1)
        return found


def look_at_map(classifier: Calibrated, x: Tensor, masks: Tensor) -> LookFn:
    """Return what the attack raises: the map's energy outside the mask against that inside.

    Of a scan without a tumour it is the energy anywhere. The answer is that of the clean scans x.

    Args:
        classifier: whose network makes tumour maps.
        x: clean scans (B, C, H, W).
        masks: (B, H, W) bool, empty of healthy scans.
    """
    with torch.no_grad():
        answer = classifier(x).argmax(1)
    side = 2 * answer.float() - 1

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        output = classifier.model.outputs(z)
        logits = classifier.calibrate(output.logits)
        cells = explain(classifier, output).mixed
        if cells is None:
            raise ValueError("the network makes no tumour map to attack")
        share = F.avg_pool2d(masks[:, None].float(), masks.shape[-1] // cells.shape[-1])[:, 0]
        inside = (cells * share).sum((1, 2)).clamp_min(MIN_SUM).log()
        outside = (cells * (1 - share)).sum((1, 2)).clamp_min(MIN_SUM).log()
        objective = torch.where(masks.flatten(1).any(1), outside - inside, outside)
        return objective, side * (logits[:, 1] - logits[:, 0])

    return look
