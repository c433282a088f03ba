"""Fixtures of core: phantoms, and a system whose settings a test may change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from core.pipeline import MedFedPure
from demo.phantom import draw_phantom

torch.set_num_threads(1)  # networks this small gain nothing from more


@pytest.fixture(scope="session")
def phantoms() -> Tensor:
    """Draw four phantoms, every second one with a tumour: (4, 1, 224, 224)."""
    return torch.stack([draw_phantom(seed, tumour=seed % 2 == 1) for seed in range(4)])


@pytest.fixture
def system(tiny_system: MedFedPure) -> MedFedPure:
    """Copy the tiny system, with a U-Net that predicts other noise than zero."""
    own = copy.deepcopy(tiny_system)
    torch.nn.init.normal_(
        own.purifier.noise_pred.out.weight, std=0.05, generator=torch.Generator().manual_seed(1)
    )
    return own
