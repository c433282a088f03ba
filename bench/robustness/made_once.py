"""Attacks on a classifier alone, made once for all systems that have that classifier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.robustness.attacks import Attacker, Rung
from bench.robustness.systems import Target
from train.data.dataset import Batch


def maker_of(rung: Rung, target: Target) -> object:
    """Targets for which it is the same can be handed the same attacked scans."""
    if not rung.alone:
        return target.name
    return None if rung.lent else target.classify


@dataclass
class MadeOnce:
    """One of the ladder's attacks, whose attacked scans are kept where they are not the target's.

    An attack on the classifier alone asks nothing of what stands in front of it, so that systems
    with the same classifier are handed the same attacked scans; where the attack's models are lent,
    all systems are. In which batch a scan was attacked changes it as much as rounding does, as
    ever. `known` holds the scans of every try on the CPU, by their maker and the scan's seed.
    """

    rung: Rung
    attacker: Attacker
    known: dict[tuple[object, int], list[Tensor]] = field(default_factory=dict)

    def __call__(self, target: Target, scans: Batch) -> Iterable[Tensor]:
        """Attacked scans (B, C, H, W), one tensor a try."""
        if not self.rung.alone:
            return self.rung.tries(self.attacker, target, scans)
        x, y, seeds = scans
        keys = [(maker_of(self.rung, target), seed) for seed in seeds]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            some = Batch(x[new], y[new], [seeds[i] for i in new])
            tries = list(self.rung.tries(self.attacker, target, some))
            tries = [x_adv.cpu() for x_adv in tries]
            self.known |= {keys[i]: [x_adv[row] for x_adv in tries] for row, i in enumerate(new)}
        every = zip(*(self.known[key] for key in keys), strict=True)
        return [torch.stack(one).to(x.device) for one in every]
