"""The page: its header and its tabs, each of which is a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr

from core import smoothing
from core.checkpoint import WEIGHTS, WeightsError, read_manifest
from core.smoothing import Smoothed
from core.weights import Systems, load_all
from demo import examples
from demo.about.tab import About
from demo.batch.tab import Batch
from demo.examples import Example
from demo.explore.tab import Explore
from demo.learn.tab import Learn
from demo.rendering import wording
from demo.serving.api import Api
from demo.serving.no_remote_fetch import disable_remote_fetch
from demo.serving.uploads import UploadStore


def build(
    systems: Systems | None = None,
    samples: Sequence[Example] | None = None,
    *,
    is_public: bool = False,
) -> gr.Blocks:
    """The app.

    Args:
        systems: what reads, by hospital; by default what ships. Explore offers the choice, all else
            reads as the first. Where weights are missing or refused the page says so and analyses
            nothing.
        samples: the example scans; by default those that ship with the page.
        is_public: whether strangers can open it; it says so before anything is uploaded.

    Returns:
        Blocks with a queue, to be launched with `demo.serving.launch.build_launch_settings()`.
    """
    problem, reader, no_reader = "", None, ""
    if systems is None:
        try:
            systems = load_all()
        except WeightsError as error:
            systems, problem = {}, str(error)
        reader, no_reader = _reader()
    first = next(iter(systems.values()), None)
    samples = examples.load_examples() if samples is None else samples
    disable_remote_fetch()
    with gr.Blocks(title="MedFedPure", fill_width=True, analytics_enabled=False) as blocks:
        gr.HTML(_header(problem, is_public), elem_id="header")
        uploads = UploadStore()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Explore", id="explore", elem_id="tab-explore"):
                Explore(systems, problem, samples, uploads, reader, no_reader)
            with gr.Tab("Batch", id="batch", elem_id="tab-batch"):
                Batch(first, problem, uploads)
            with gr.Tab("Learn", id="learn", elem_id="tab-learn"):
                Learn(first, samples)
            with gr.Tab("About", id="about", elem_id="tab-about"):
                About()
        Api(systems, problem, uploads)
    blocks.queue(max_size=16)
    return blocks


def _reader() -> tuple[Smoothed | None, str]:
    """What gives certificates, where the weights that ship have it; else why not, if damaged."""
    try:
        has_some = smoothing.FILE in read_manifest(WEIGHTS)
        return smoothing.load() if has_some else None, ""
    except WeightsError as error:
        return None, str(error)


def _header(problem: str, is_public: bool) -> str:
    notice = wording.PUBLIC_NOTICE if is_public else wording.NOTICE
    banner = f'<div class="mf-banner" role="alert">{escape(problem)}</div>' if problem else ""
    return (
        '<header class="mf-header"><h1>MedFedPure</h1>'
        "<p>Brain MRI, attacked and defended</p>"
        f'<p class="mf-notice">{escape(notice)}</p></header>{banner}'
    )
