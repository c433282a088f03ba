"""Folder of weights with three hospitals and untrained parts, as a federation writes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from core import checkpoint
from core.moe import is_personal
from core.pipeline import MedFedPure
from core.weights import PARTS, system_file_name
from train.federated.hospital_weights import save_hospital, save_shared

COUNT, SPLIT = 3, "a split"


def write(
    system: MedFedPure, folder: Path, is_own: Callable[[str], bool] = is_personal
) -> dict[int, MedFedPure]:
    """Write `system` as that of three hospitals; return the written system of each."""
    for parameter in system.parameters():  # what half precision keeps
        parameter.data = parameter.data.half().float()
    save_shared(system, folder, SPLIT, lambda file, name: is_own(name))
    written = {}
    for number in range(1, COUNT + 1):
        own = copy.deepcopy(system)
        torch.manual_seed(number)
        for name, parameter in own.classifier.model.named_parameters():
            if is_own(name):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        own.classifier.temperature.fill_(1 + number / 4)
        own.plain.bias.copy_(torch.tensor([0.0, number / 5]))
        own.detector.clean_mean.fill_(-number)
        own.detector.thresholds.fill_([-1e3, 1e3, -1e3][number - 1])  # flags, flags not, flags
        save_hospital(own, folder, number, SPLIT)
        written[number] = own
    names = [*PARTS, *map(system_file_name, written)]
    checkpoint.write_manifest(folder, names, preset="tiny", protocol="none", commit="none")
    return written
