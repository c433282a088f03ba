"""Threat models: the paper's attack, and an attacker that knows the whole defence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from core.attacks.base import LogitsFn
from core.attacks.eot import eot
from core.attacks.pgd import PGD

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

PAPER_EPS = 0.015
EOT_ITER = 2  # noise draws averaged in each step by an attacker that knows the defence
MIN_ALPHA = 1e-9  # eps 0 still needs a step size above 0


def paper_attack(eps: float = PAPER_EPS, *, eight_bit: bool = False) -> PGD:
    """Return the paper's attack (section IV): PGD-7 in L-inf, random start, alpha = eps / 5.

    At the paper's eps of .015 the step is .003. With `eight_bit` the result survives an 8-bit file.
    """
    return PGD(eps, max(eps / 5, MIN_ALPHA), 7, eight_bit=eight_bit)


def adaptive_logits(system: MedFedPure, seeds: Iterable[int]) -> LogitsFn:
    """Return the full pipeline's logits for an adaptive attack: EOT over the purifier's noise.

    Each call averages `EOT_ITER` noise draws (Athalye et al. 2018) and takes one of `seeds` for
    each scan and draw: the attacker knows the noise's distribution, not the draw of the reading.
    Under policy `picture` no noise is in the answer: the logits are those of the mixture.
    """
    if not system.reads_purified:
        return system.classifier_logits
    draws = iter(seeds)

    def draw(x: Tensor) -> Tensor:
        return system.logits(x, [next(draws) for _ in x])

    return eot(draw, EOT_ITER)
