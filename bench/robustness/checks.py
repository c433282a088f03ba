"""The ladder distrusts itself: outputs that can be attacked, gradients that lead uphill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.robustness.attacks import seen
from bench.robustness.evaluate import read_after
from bench.robustness.old_checks import in_corner
from bench.robustness.systems import Target
from core.attacks import APGD, PGD
from core.attacks.base import gradient, margin
from train.data.dataset import ScanDataset, space_evenly

LARGE, STEPS = 0.25, 10  # an attack that nothing survives
ZERO_SHARE = 0.01
ALIKE = 0.7  # cosine of the gradient in the attacks' precision and in full
FEW = 5  # steps of APGD, and five times as many
FINE = 2e-4  # of the finite difference along the gradient's sign, in [0, 1]
ABOUT = 5e-3  # how far sums of probabilities are from 1 in low precision
SLOPES = (0.5, 2.0)  # of the measured rise against the promised one, median over scans

ValueFn = Callable[[Tensor], Tensor]  # of scans (B, C, H, W), (B,)


@torch.no_grad()
def check_target(target: Target, fold: ScanDataset, device: torch.device, limit: int = 8) -> None:
    """Refuses what attacks cannot follow, on a few scans of each class.

    Raises:
        ValueError: outputs that are not numbers, probabilities in place of logits, one class, or
            one answer for all scans.
    """
    kinds = [(fold.labels == label).nonzero()[:, 0].tolist() for label in (0, 1)]
    some = fold.pick([rows[i] for rows in kinds for i in space_evenly(len(rows), limit)])
    x, _, seeds = some.batches(len(some), device)[0]
    logits = target.logits(x, seeds)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"{target.name} returns {tuple(logits.shape)}, not a logit for each class")
    if not torch.isfinite(logits).all():
        raise ValueError(f"{target.name} returns what is no number for a clean scan")
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=ABOUT):
        raise ValueError(
            f"{target.name} returns probabilities: their gradient vanishes where the system is "
            "sure, which looks like robustness; return logits or log-probabilities"
        )
    enough = min(map(len, kinds)) >= limit  # of fewer it may be chance
    if bool((logits == logits[0]).all()) or (enough and len(logits.argmax(1).unique()) == 1):
        raise ValueError(f"{target.name} says the same of every scan, whatever is in it")


def check_gradients(
    target: Target, fold: ScanDataset, eps: float, device: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Figures, and a sentence for each law that is broken.

    What a target refuses to read is read here: refusing is not being right.
    """
    target = replace(target, refuses=False)
    found, warnings = {}, []
    scans = fold.batches(len(fold), device)[0]
    x, y, seeds = scans

    def logits(z: Tensor) -> Tensor:
        return target.logits(z, seeds)

    grad, _ = gradient(logits, x, y, 0)
    found["zero_gradients"] = zero_share(grad)
    if found["zero_gradients"] > ZERO_SHARE:
        share = f"{found['zero_gradients']:.0%}"
        warnings.append(f"{target.name}: {share} of the scans have no gradient at all")
    coarse, _ = gradient(seen(target, scans), x, y, 0)
    found["precision"] = float(_alike(grad, coarse).median())
    if found["precision"] < ALIKE and not found["zero_gradients"]:
        warnings.append(
            f"{target.name}: the gradient that attacks follow has a cosine of "
            f"{found['precision']:.2f} with the exact one"
        )
    found["slope"] = slope_of(lambda z: margin(logits(z), y), x, FINE)[0]
    if not SLOPES[0] <= found["slope"] <= SLOPES[1]:
        warnings.append(
            f"{target.name}: the margin rises {found['slope']:.2f} times what its gradient promises"
        )

    def left(tries: list[Tensor]) -> float:
        return read_after(target, scans, tries).bits["right"].count("1") / len(y)

    found["clean"] = left([x])
    found["eps_0"] = left([PGD(eps=0.0, steps=1)(logits, x, y, seeds)])
    found["noise"] = left([in_corner(x, eps, seeds)])
    few, many = (APGD(eps, steps)(logits, x, y, seeds) for steps in (FEW, 5 * FEW))
    found["few_steps"], found["many_steps"] = left([few]), left([many])
    if found["many_steps"] > found["few_steps"] + 1 / len(y) + 1e-9:  # a scan may fall to luck
        warnings.append(
            f"{target.name}: {5 * FEW} steps leave {found['many_steps']:.3f} right, {FEW} steps "
            f"{found['few_steps']:.3f}: the attack does not converge"
        )
    large = PGD(eps=LARGE, alpha=2.5 * LARGE / STEPS, steps=STEPS)
    found["eps_.25"] = left([large(logits, x, y, seeds)])
    if found["eps_0"] != found["clean"]:
        warnings.append(
            f"{target.name}: eps 0 leaves {found['eps_0']:.3f}, clean {found['clean']:.3f}"
        )
    if found["eps_.25"] > 0.05:
        some = f"{found['eps_.25']:.3f}"
        warnings.append(f"{target.name}: eps {LARGE} leaves {some} right: gradients may be masked")
    return {"n": len(y), **found}, warnings


def _alike(first: Tensor, second: Tensor) -> Tensor:
    """Cosines (B,) of gradients, however small where a reader is sure."""
    tiny = torch.finfo(first.dtype).tiny
    rows = (g.flatten(1) / g.flatten(1).abs().amax(1, keepdim=True).clamp_min(tiny)
            for g in (first, second))  # fmt: skip
    return F.cosine_similarity(*rows)


def slope_of(value: ValueFn, x: Tensor, fine: float) -> tuple[float, Tensor]:
    """How `value` (B,) rises after a tiny step along its gradient's sign; that gradient too.

    The median over scans of the rise over what the gradient promises; 0 where it promises nothing.
    """
    z = x.clone().requires_grad_()
    before = value(z)
    (grad,) = torch.autograd.grad(before.sum(), z)
    step = (x + fine * grad.sign()).clamp(0, 1) - x
    promised = (grad * step).flatten(1).sum(1)
    with torch.no_grad():
        rise = value(x + step) - before.detach()
    ratio = torch.where(promised > 0, rise / promised.clamp_min(1e-12), 0.0)
    return float(ratio.median()), grad


def zero_share(grad: Tensor) -> float:
    """Share of scans (B, C, H, W) without any gradient.

    Where an expert sees nothing the gradient is 0 by right: in scans, not in pixels.
    """
    return float((grad.flatten(1).abs().amax(1) == 0).double().mean())
