"""The attacks of the paper's Tables I and II, each with the space that its budget is meant in.

Table I's 'L2, eps .1' can be read in two ways. An L2 ball of .1 is too small to bring FedAvg from
93 % to 0; pFedDef's own evaluation, which the paper says it repeats, takes signed steps, 10 of .01,
in a wide L2 ball of normalised pixels. Both are here, and a figure must say which it is of.
"""

from __future__ import annotations

from bench.robustness.rows import Row
from core.attacks import PGD
from core.attacks.signed_l2 import SignedL2

ROWS = (
    Row(
        "table-1-pfeddef",
        "Table I as pFedDef's evaluation has it: 10 signed steps of .01 in an L2 ball of 4.5, in "
        "pixels normalised by CIFAR-10's channels; random start",
        SignedL2(),
    ),
    Row(
        "table-1-l2",
        "Table I to the letter: 10 steps of length .01 along the gradient in an L2 ball of .1, in "
        "pixels of [0, 1]; random start",
        PGD(eps=0.1, alpha=0.01, steps=10, norm="l2"),
    ),
    Row(
        "table-2-cifar10",
        "Table II on CIFAR-10: 7 signed steps of .007 in an L-inf ball of .015, in pixels of "
        "[0, 1]; random start",
        PGD(eps=0.015, alpha=0.007, steps=7),
    ),
    Row(
        "table-2-br35h",
        "Table II on Br35H: 7 signed steps of .003 in an L-inf ball of .015, in pixels of [0, 1]; "
        "random start",
        PGD(eps=0.015, alpha=0.003, steps=7),
    ),
)
PRESETS = {row.name: row for row in ROWS}
