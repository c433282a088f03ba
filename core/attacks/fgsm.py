"""Fast gradient sign method (Goodfellow et al. 2015): one full step from the scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from core.attacks.base import LogitsFn, Step, check
from core.attacks.pgd import PGD


@dataclass(frozen=True)
class FGSM:
    """FGSM: x + eps * sign(grad loss) in L-inf; in L2 a step of length eps along the gradient."""

    eps: float = 0.015
    norm: str = "linf"
    targeted: bool = False
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, self.norm)

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x; `seeds` is unused."""
        return self._as_pgd()(logits_fn, x, y)

    def trajectory(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Iterator[Step]:
        """Yield step 0 (the scan) and step 1 (the result)."""
        return self._as_pgd().trajectory(logits_fn, x, y)

    def _as_pgd(self) -> PGD:
        return PGD(
            eps=self.eps,
            alpha=max(self.eps, 1e-12),
            steps=1,
            norm=self.norm,
            random_start=False,
            targeted=self.targeted,
            eight_bit=self.eight_bit,
        )
