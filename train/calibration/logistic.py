"""Ridge logistic regression by L-BFGS on the full data set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_logistic(zeros: Tensor, ones: Tensor, ridge: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (F,) and offset () of the log-odds of `ones` (M, F) against `zeros` (N, F).

    Both classes weigh the same; `ridge`, one number or one for each weight, times the squared
    weights is added to the mean loss.
    """
    z = torch.cat([zeros, ones]).double()
    y = torch.cat([torch.zeros(len(zeros)), torch.ones(len(ones))]).to(z)
    share = torch.where(y == 1, 0.5 / len(ones), 0.5 / len(zeros))
    w = torch.zeros(z.shape[1] + 1, dtype=torch.float64, device=z.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(
            z @ w[:-1] + w[-1], y, weight=share, reduction="sum"
        )
        loss = loss + (ridge * w[:-1].square()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w[:-1].detach(), w[-1].detach()
