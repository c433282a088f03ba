"""The methods of Tables I and II: what is laid over a preset for each, and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.federation.presets import PRESETS
from bench.names import require_known
from bench.robustness.rows import Row
from core.attacks import PGD


@dataclass(frozen=True)
class Method:
    """`laid` are files of train/conf/overrides; `single` methods have one expert, not a mixture."""

    name: str
    meaning: str
    laid: tuple[str, ...] = ()
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
    Method("one attention", "the same with the attention averaged too", ("all-shared",)),
    Method("MedFedPure", "detector and purifier in front of the mixture", whole=True),
)


@dataclass(frozen=True)
class Table:
    """One table: data, network, attack; presets by setting; the paper's clean and attacked, %."""

    dataset: str
    protocol: str
    backbone: str
    presets: dict[str, str]
    laid: tuple[str, ...]
    one_expert: dict[str, str]  # by setting, as presets
    attacks: tuple[Row, ...]
    published: dict[str, tuple[float, float]]


def _whole(eps: float, alpha: float) -> Row:
    meaning = "PGD-20 through the whole of each method, its noise seed known"
    return Row("A3-lite", meaning, PGD(eps=eps, alpha=alpha, steps=20), whole=True)


CLEAN = Row("clean", "scans as they are")
CIFAR_PRESETS = {"reduced": "cifar10-reduced", "paper": "cifar10-paper"}
ONE_PICTURE = dict.fromkeys(CIFAR_PRESETS, "one-expert-32")
TABLES = {
    "1-cifar10": Table(
        "CIFAR-10", "cifar10", "MobileNetV2", CIFAR_PRESETS, ("mobilenet",), ONE_PICTURE,
        (CLEAN, PRESETS["table-1-pfeddef"], PRESETS["table-1-l2"], _whole(0.015, 0.0025)),
        {
            "FedAvg": (93.0, 0.0), "Local": (38.0, 33.0), "FedEM": (76.0, 13.0),
            "FAT": (80.0, 30.0), "Local Adv.": (30.0, 28.0), "pFedDef": (66.0, 48.0),
            "MedFedPure": (82.31, 69.13),
        },
    ),
    "2-cifar10": Table(
        "CIFAR-10", "cifar10", "ResNet-18", CIFAR_PRESETS, (), ONE_PICTURE,
        (CLEAN, PRESETS["table-2-cifar10"], _whole(0.015, 0.0025)),
        {"pFedDef": (68.64, 14.28), "MedFedPure": (88.11, 77.98)},
    ),
    "2-br35h": Table(
        "Br35H", "leak-free", "ResNet-18", {"reduced": "br35h-reduced", "paper": "paper"}, (),
        {"reduced": "one-expert-112", "paper": "one-expert-224"},
        (CLEAN, PRESETS["table-2-br35h"], _whole(0.015, 0.0025)),
        {"pFedDef": (98.33, 49.50), "MedFedPure": (97.67, 87.33)},
    ),
}  # fmt: skip


def preset_of(table: Table, setting: str, method: Method) -> str:
    """The name of the preset that trains a method for a table."""
    laid = [*table.laid, *([table.one_expert[setting]] if method.single else []), *method.laid]
    return "+".join([table.presets[setting], *laid])


def in_order(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Methods' rows in the tables' order, whichever was measured first."""
    return {m.name: rows[m.name] for m in METHODS if m.name in rows}


def methods_named(names: list[str] | None) -> list[Method]:
    """The methods of these names, all by default. Raises ValueError for an unknown one."""
    require_known("method", names or (), [m.name for m in METHODS])
    return [m for m in METHODS if not names or m.name in names]
