"""Inputs that a call leaves out: defaults at a public endpoint, a refusal at a private event."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from demo.serving.blocks import OpenBlocks
from demo.serving.events import PRIVATE


def preprocess(inputs: list[Any], **visibility: Any) -> list[Any]:
    """Pass inputs to an event that takes a word and a number, 7 by default."""

    async def run() -> list[Any]:  # Gradio leaves a loop of its own open where none is running
        with OpenBlocks() as blocks:
            word, number = gr.Textbox("none"), gr.Number(7, precision=0)
            gr.Button().click(lambda *_: None, [word, number], **visibility)
        (block_fn,) = blocks.fns.values()
        return await blocks.preprocess_data(block_fn, inputs, None)

    return asyncio.run(run())


def test_a_public_endpoint_takes_the_default_of_an_input_left_out() -> None:
    assert preprocess(["word"], api_name="read") == ["word", 7]
    assert preprocess(["word", 3], api_name="read") == ["word", 3]


def test_a_private_event_refuses_a_call_without_an_input() -> None:
    assert preprocess(["word", 3], **PRIVATE) == ["word", 3]
    with pytest.raises(ValueError, match=r"needed: 2, got: 1"):
        preprocess(["word"], **PRIVATE)
