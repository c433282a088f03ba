from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from bench.app.browser import CHROMIUM, FLAGS, Visitor
from core.attacks import Step
from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure, build
from demo.phantom import draw_phantom
from tests.demo.browser.browsing import Served
from tests.small_system import small_config


@pytest.fixture(scope="session")
def system() -> MedFedPure:
    """Build an untrained pipeline: the page's tests check layout and words, not outputs."""
    torch.manual_seed(0)
    return build(small_config((112, 56, 28)), {"preset": "untrained"})


@pytest.fixture(scope="session")
def mapping_system() -> MedFedPure:
    """Build an untrained pipeline whose experts make tumour maps; it judges every picture."""
    torch.manual_seed(0)
    config = small_config((112, 56, 28))
    config = replace(config, moe=replace(config.moe, map_width=8))
    system = build(config, {"preset": "untrained"})
    system.novelty.cut.fill_(99)
    return system


@pytest.fixture(scope="session")
def mapped(mapping_system: MedFedPure, scan: torch.Tensor) -> Diagnosis:
    """Read a scan with tumour maps."""
    return mapping_system.read(scan)


@pytest.fixture(scope="session")
def scan() -> torch.Tensor:
    return draw_phantom(1, tumour=True)


def _ends_at(attacked: torch.Tensor) -> tuple[Step, ...]:
    return (Step(1, attacked[None], torch.zeros(1), torch.tensor([[0.5, 0.5]])),)


@pytest.fixture(scope="session")
def ends_at():
    """Return a function: the steps of an attack that ends at a scan (1, 224, 224)."""
    return _ends_at


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """Return a colour picture as PNG: hue runs from left to right."""
    hue = Image.linear_gradient("L").rotate(90).resize((96, 96))
    full = Image.new("L", hue.size, 255)
    buffer = io.BytesIO()
    Image.merge("HSV", (hue, full, full)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Open the page in a context of its own; afterwards no request may have left the machine."""
    guest = Visitor(browser)
    yield guest.open
    for context in guest.contexts:
        context.close()
    assert guest.strangers == [] and guest.errors == []
