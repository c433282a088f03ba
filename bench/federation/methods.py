"""Methods and attacks of the paper's Tables I and II, and the published figures.

Table I's 'L2, eps .1' can be read in two ways. An L2 ball of .1 is too small to bring FedAvg from
93 % to 0; pFedDef's own evaluation, which the paper repeats, takes 10 signed steps of .01 in a wide
L2 ball of normalised pixels. Both attacks are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.options import require_known
from bench.robustness.attacks import CLASSIFIER, CLEAN, DEFENCE, Attack
from core.attacks import PGD
from core.attacks.signed_l2 import SignedL2

_ATTACKS = (
    Attack("table-1-pfeddef", "PGD-10, wide L2 ball", "Table I as pFedDef's evaluation has it: 10 "
           "signed steps of .01 in an L2 ball of 4.5, in pixels normalised by CIFAR-10's channels; "
           "random start", CLASSIFIER, lambda _: SignedL2()),
    Attack("table-1-l2", "PGD-10, L2", "Table I to the letter: 10 steps of length .01 along the "
           "gradient in an L2 ball of .1, in pixels of [0, 1]; random start", CLASSIFIER,
           lambda _: PGD(eps=0.1, alpha=0.01, steps=10, norm="l2")),
    Attack("table-2-cifar10", "PGD-7", "Table II on CIFAR-10: 7 signed steps of .007 in an L-inf "
           "ball of .015, in pixels of [0, 1]; random start", CLASSIFIER,
           lambda _: PGD(eps=0.015, alpha=0.007, steps=7)),
    Attack("table-2-br35h", "PGD-7", "Table II on Br35H: 7 signed steps of .003 in an L-inf ball "
           "of .015, in pixels of [0, 1]; random start", CLASSIFIER,
           lambda _: PGD(eps=0.015, alpha=0.003, steps=7)),
)  # fmt: skip
TABLE_ATTACKS = {row.key: row for row in _ATTACKS}


@dataclass(frozen=True)
class Method:
    """A method of the tables.

    `overrides` are files of train/conf/overrides; a `single` method has one expert, no mixture; a
    `whole` one is the full pipeline.
    """

    name: str
    meaning: str
    overrides: tuple[str, ...] = ()
    single: bool = False
    whole: bool = False


METHODS = (
    Method("FedAvg", "one network, averaged", ("all-shared", "no-attacks"), single=True),
    Method("Local", "each client by itself", ("nothing-shared", "no-attacks"), single=True),
    Method("FedEM", "three networks, averaged; each client's weights by EM", ("em", "no-attacks")),
    Method("FAT", "FedAvg, attacked in training", ("all-shared",), single=True),
    Method("Local Adv.", "Local, attacked in training", ("nothing-shared",), single=True),
    Method("pFedDef", "FedEM, attacked in training", ("em",)),
    Method("mixture", "MedFedPure's mixture alone: attention personal, attacked in training"),
    Method("one attention", "the mixture with its attention averaged too", ("all-shared",)),
    Method("MedFedPure", "detector and purifier in front of the mixture", whole=True),
)


@dataclass(frozen=True)
class Table:
    """A table: data, network, attacks; presets by setting; published clean and attacked, %."""

    dataset: str
    protocol: str
    backbone: str
    presets: dict[str, str]
    overrides: tuple[str, ...]
    one_expert: dict[str, str]  # by setting, as presets
    attacks: tuple[Attack, ...]
    published: dict[str, tuple[float, float]]


def _build_a3_lite(eps: float, alpha: float) -> Attack:
    meaning = "PGD-20 through the whole of each method, its noise seed known"
    attack = PGD(eps=eps, alpha=alpha, steps=20)
    return Attack("A3-lite", "PGD-20, whole method", meaning, DEFENCE, lambda _: attack)


CIFAR_PRESETS = {"reduced": "cifar10-reduced", "paper": "cifar10-paper"}
ONE_PICTURE = dict.fromkeys(CIFAR_PRESETS, "one-expert-32")
TABLES = {
    "1-cifar10": Table(
        "CIFAR-10", "cifar10", "MobileNetV2", CIFAR_PRESETS, ("mobilenet",), ONE_PICTURE,
        (CLEAN, TABLE_ATTACKS["table-1-pfeddef"], TABLE_ATTACKS["table-1-l2"],
         _build_a3_lite(0.015, 0.0025)),
        {
            "FedAvg": (93.0, 0.0), "Local": (38.0, 33.0), "FedEM": (76.0, 13.0),
            "FAT": (80.0, 30.0), "Local Adv.": (30.0, 28.0), "pFedDef": (66.0, 48.0),
            "MedFedPure": (82.31, 69.13),
        },
    ),
    "2-cifar10": Table(
        "CIFAR-10", "cifar10", "ResNet-18", CIFAR_PRESETS, (), ONE_PICTURE,
        (CLEAN, TABLE_ATTACKS["table-2-cifar10"], _build_a3_lite(0.015, 0.0025)),
        {"pFedDef": (68.64, 14.28), "MedFedPure": (88.11, 77.98)},
    ),
    "2-br35h": Table(
        "Br35H", "paper", "ResNet-18", {"reduced": "br35h-reduced", "paper": "paper"}, (),
        {"reduced": "one-expert-112", "paper": "one-expert-224"},
        (CLEAN, TABLE_ATTACKS["table-2-br35h"], _build_a3_lite(0.015, 0.0025)),
        {"pFedDef": (98.33, 49.50), "MedFedPure": (97.67, 87.33)},
    ),
}  # fmt: skip


def preset_of(table: Table, setting: str, method: Method) -> str:
    """Returns the name of the preset that trains a method for a table."""
    overrides = [
        *table.overrides,
        *([table.one_expert[setting]] if method.single else []),
        *method.overrides,
    ]
    return "+".join([table.presets[setting], *overrides])


def sort_rows(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the methods' rows in the tables' order."""
    return {m.name: rows[m.name] for m in METHODS if m.name in rows}


def select_methods(names: list[str] | None) -> list[Method]:
    """Returns the methods of these names, all by default. Raises ValueError for an unknown one."""
    require_known("method", names or (), [m.name for m in METHODS])
    return [m for m in METHODS if not names or m.name in names]


class Cost(NamedTuple):
    parameters: int
    multiply_adds: int  # half of the FLOPs


@torch.no_grad()
def count_cost(module: nn.Module, reading: Callable[[], object]) -> Cost:
    """Counts the parameters of the module, and the multiply-adds of the call `reading`.

    For a mixture a reading is `lambda: model(x)`, for the whole system `lambda: system.read(scan)`:
    the latter's purification depends on the scan and on the policy. Counted are convolutions and
    products of matrices, attention's among them; what goes pixel by pixel is left out, as usual.
    """
    # attention's fused kernel for the CPU is not counted; as plain products it is, everywhere alike
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        reading()
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)
