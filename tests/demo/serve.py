"""Serves the page for the browser tests: python -m tests.demo.serve PORT [--no-weights] [--mcp]."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import app

if TYPE_CHECKING:
    import gradio as gr

REFUSAL = "The weights are missing: see the README <how to get them>."


def make() -> gr.Blocks:
    """Imports gradio, so only after the app has set its environment."""
    import torch
    from gradio import networking

    import core
    from core.checkpoint import WeightsError
    from core.pipeline import PipelineConfig
    from core.pipeline import build as build_system
    from core.scan import to_uint8
    from demo.examples import Example
    from demo.page import build
    from demo.phantom import phantom

    networking.url_ok = lambda url: True  # tests wait for a slow machine longer than Gradio does
    samples = [
        Example(f"sample {i}", to_uint8(phantom(i, i == 0)), i == 0, 0.5, True, True, i == 0)
        for i in range(2)
    ]
    if "--no-weights" in sys.argv:

        def refuse() -> None:
            raise WeightsError(REFUSAL)

        core.load = refuse  # type: ignore[attr-defined, assignment]
        return build(samples=samples)
    torch.manual_seed(0)
    return build(build_system(PipelineConfig(), {"preset": "untrained"}), samples)


if __name__ == "__main__":
    mcp = ["--mcp"] if "--mcp" in sys.argv else []
    app.serve(make, app.arguments(["--no-browser", "--port", sys.argv[1], *mcp]))
