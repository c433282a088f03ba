"""Command that serves the page for the browser tests.

python -m tests.demo.browser.serve PORT [--no-weights] [--mcp].

With --hospitals the untrained system is three hospitals' (simulated); with --maps its experts make
tumour maps.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import app

if TYPE_CHECKING:
    import gradio as gr

REFUSAL = "The weights are missing: see the README <how to get them>."


def make() -> gr.Blocks:
    """Build the page; imports gradio, so only after the app has set its environment."""
    import torch
    from gradio import networking

    from core.checkpoint import WeightsError
    from core.pipeline import build
    from core.scan import to_uint8
    from core.weights import load_all
    from demo import page
    from demo.examples import Example
    from demo.phantom import draw_phantom
    from tests.hospitals import write
    from tests.small_system import small_config

    networking.url_ok = lambda url: True  # tests wait for a slow machine longer than Gradio does
    samples = [
        Example(f"sample {i}", to_uint8(draw_phantom(i, i == 0)), i == 0, 0.5, True, True, i == 0)
        for i in range(2)
    ]
    if "--no-weights" in sys.argv:

        def refuse() -> None:
            raise WeightsError(REFUSAL)

        page.load_all = refuse  # type: ignore[assignment]
        return page.build(samples=samples)
    torch.manual_seed(0)
    config = small_config((112, 56, 28))
    if "--maps" in sys.argv:
        config = replace(config, moe=replace(config.moe, map_width=8))
    system = build(config, {"preset": "untrained"})
    if "--maps" in sys.argv:
        system.novelty.cut.fill_(99)  # judges every picture
    if "--hospitals" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            write(system, Path(folder))
            return page.build(load_all(folder), samples)
    return page.build({None: system}, samples)


if __name__ == "__main__":
    mcp = ["--mcp"] if "--mcp" in sys.argv else []
    app.serve(make, app.parse_arguments(["--no-browser", "--port", sys.argv[1], *mcp]))
