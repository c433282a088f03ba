"""The ladder distrusts its attacks on the detector: has the score a gradient that leads down?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.robustness.attacks import as_logits, look_of
from bench.robustness.checks import SLOPES, ZERO_SHARE, slope_of, zero_share
from bench.robustness.old_checks import in_corner
from bench.robustness.systems import Target
from core.attacks import APGD, DetectorAwarePGD, Square
from core.attacks.base import to_eight_bit
from train.data.dataset import ScanDataset

FINE = 5e-6  # of the finite difference: the score is curved, a longer step leaves its gradient
FAR = 1e6
STEPS, QUERIES = 30, 150  # with the gradient, and without any


def check_gate(
    target: Target, fold: ScanDataset, eps: float, device: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Figures, and a sentence for each law that is broken; nothing where there is no detector.

    Scans moved by random signs of size eps are where an attack begins. There the score must have a
    gradient, and rise along it as it promises; and who follows it, as the ladder's attacks see it,
    must get the score lower than Square does, which needs none. `signed` is how far steps of one
    size in every pixel get, which a detector of grain sees.
    """
    if target.gate is None:
        return {}, []
    gate, name = target.gate, target.name
    scans = fold.batches(len(fold), device)[0]
    x, y, seeds = scans
    look = look_of(target, scans)

    def score(z: Tensor) -> Tensor:
        return (gate.read(z, seeds).score - gate.tau) / gate.span

    def lowered(z: Tensor) -> Tensor:
        return as_logits(-look(z)[1], y)

    start = in_corner(x, eps, seeds)
    slope, grad = slope_of(score, start, FINE)
    found: dict[str, Any] = {"n": len(y), "zero_gradients": zero_share(grad), "slope": slope}
    signed = APGD(eps, STEPS, loss="margin")(lowered, x, y, seeds)
    # misread by far wherever it goes: what is left is to hide, and the point that hides best counts
    with_it = DetectorAwarePGD(eps, STEPS)(
        lambda z: (FAR + 0 * z.sum((1, 2, 3)), look(z)[1]), x, start
    )
    without = Square(eps, QUERIES, until_wrong=False)(lowered, x, y, seeds)
    with torch.no_grad():
        for key, z in (("clean", x), ("moved", start), ("signed", signed),
                       ("with_gradient", with_it), ("without", without)):  # fmt: skip
            lower = torch.minimum(score(z), score(to_eight_bit(x, z)))
            found[key] = float(lower.median())  # above tau, in its span
    warnings = []
    if found["zero_gradients"] > ZERO_SHARE:
        share = f"{found['zero_gradients']:.0%}"
        warnings.append(f"{name}: for {share} of the scans the detector's score has no gradient")
    if not SLOPES[0] <= found["slope"] <= SLOPES[1]:
        warnings.append(
            f"{name}: the detector's score rises {found['slope']:.2f} times what its gradient "
            "promises"
        )
    if found["with_gradient"] > found["without"]:
        warnings.append(
            f"{name}: following its gradient leaves the detector's score at "
            f"{found['with_gradient']:.2f}, Square at {found['without']:.2f}: it may be masked"
        )
    return found, warnings
