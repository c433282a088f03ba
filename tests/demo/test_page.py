"""The page as a tuple of tabs."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest

from core.pipeline import MedFedPure
from demo import page


class Dummy:
    """Tab of another module that needs one of the resources."""

    def __init__(self, problem: str) -> None:
        gr.HTML(f"<p>dummy {problem}</p>", elem_id="dummy-text")


def test_a_tab_is_one_file_and_one_line(
    tiny_system: MedFedPure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "TABS", (*page.TABS, ("Dummy", lambda r: Dummy(r.problem))))

    async def build() -> gr.Blocks:  # Gradio leaves a loop of its own open where none is running
        return page.build({None: tiny_system}, [])

    blocks = asyncio.run(build())
    tabs = [block for block in blocks.blocks.values() if isinstance(block, gr.Tab)]
    own = [tab for tab in tabs if str(tab.elem_id).startswith("tab-")]
    assert [tab.label for tab in own] == ["Explore", "Batch", "Learn", "About", "Dummy"]
    assert own[-1].id == "dummy" and own[-1].elem_id == "tab-dummy"
    assert [child.elem_id for child in own[-1].children] == ["dummy-text"]
