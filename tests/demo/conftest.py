from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from core.attack import Step
from core.pipeline import MedFedPure, PipelineConfig, build
from demo.phantom import phantom


@pytest.fixture(scope="session")
def system() -> MedFedPure:
    """A whole pipeline, untrained: the page promises its layout and its words, not its outputs."""
    torch.manual_seed(0)
    return build(PipelineConfig(), {"preset": "untrained"})


@pytest.fixture(scope="session")
def scan() -> torch.Tensor:
    return phantom(1, tumour=True)


def _ends_at(attacked: torch.Tensor) -> tuple[Step, ...]:
    return (Step(1, attacked[None], torch.zeros(1), torch.tensor([[0.5, 0.5]])),)


@pytest.fixture(scope="session")
def ends_at():
    """Makes the steps of an attack that ends at a scan (1, 224, 224)."""
    return _ends_at


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """A colour picture as PNG: hue runs from left to right."""
    hue = Image.linear_gradient("L").rotate(90).resize((96, 96))
    full = Image.new("L", hue.size, 255)
    buffer = io.BytesIO()
    Image.merge("HSV", (hue, full, full)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()
