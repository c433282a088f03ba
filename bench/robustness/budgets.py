"""How much an evaluation may spend: scans, steps, restarts, queries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Of one climb of the ladder. `eot` draws average a stochastic system's noise."""

    scans: int
    steps: int  # of APGD and of every attack that follows a gradient
    restarts: int
    starts: int  # of PGD on the classifier alone
    eot: int
    queries: int  # of Square
    few_scans: int  # of the dearest attacks; others run on them, fallen or not, to compare rows
    curve_scans: int  # at each eps of the curve
    others: int  # hospitals whose mixtures lend A2 their gradients
    checked: int  # scans of the self-checks; the dearest run on them too, fallen or not


COMMITTED = "cpu"  # whose file has no budget in its name
BUDGETS = {
    "smoke": Budget(16, 10, 1, 1, 2, 50, 8, 8, 1, 8),
    "cpu": Budget(200, 50, 1, 5, 4, 1000, 64, 48, 2, 16),
    "full": Budget(600, 100, 2, 5, 8, 5000, 200, 200, 9, 32),
}
