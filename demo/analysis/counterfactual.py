"""Visible, smooth changes of a scan that turn each classifier's answer.

Both classifiers read the scan as received: without detector and purifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.attacks import Counterfactual

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

SEARCH = Counterfactual()


@dataclass(frozen=True)
class Change:
    """A scan changed until a classifier's answer turned, or until no larger change was allowed."""

    classifier: str
    before: float  # tumour probability of the scan
    after: float  # of the changed scan
    scan: Tensor  # (1, H, W), changed

    @property
    def has_turned(self) -> bool:
        """True if the answer is another one."""
        return (self.before >= 0.5) != (self.after >= 0.5)


@torch.no_grad()
def search_changes(system: MedFedPure, scan: Tensor) -> Iterator[tuple[Change, ...]]:
    """Change a scan (1, H, W) for each classifier; yield all after each step, for progress."""
    x = scan[None].to(system.device)
    done: tuple[Change, ...] = ()
    for name, logits_fn in (
        ("mixture", system.classifier_logits),
        ("plain classifier", system.plain_logits),
    ):
        wanted = 1 - logits_fn(x).argmax(1)
        before = None
        for step in SEARCH.search(logits_fn, x, wanted):
            tumour = float(step.probabilities[0, 1])
            before = tumour if before is None else before
            changed = Change(name, before, tumour, step.x_adv[0].cpu())
            yield *done, changed
        done = *done, changed
