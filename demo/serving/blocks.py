"""Gradio's Blocks, with an endpoint for programs whose last inputs may be left out."""

from __future__ import annotations

from typing import Any

import gradio as gr


class OpenBlocks(gr.Blocks):
    """Blocks whose public endpoints take the default of each input that a call leaves out.

    Gradio refuses such calls by plain HTTP; one more input would break every program that calls the
    endpoint.
    """

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any
    ) -> list[Any]:
        """Complete the inputs of a call, and preprocess them."""
        if block_fn.api_visibility == "public":
            inputs = [*inputs, *(block.value for block in block_fn.inputs[len(inputs) :])]
        return await super().preprocess_data(block_fn, inputs, *more, **named)
