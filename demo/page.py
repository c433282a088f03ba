"""Page of the demo: header, tabs and public endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from core import interval
from core.checkpoint import WEIGHTS, WeightsError, read_manifest
from core.interval import IntervalNet
from core.pipeline import MedFedPure
from core.weights import Systems, load_all
from demo.about.tab import AboutTab
from demo.batch.tab import BatchTab
from demo.examples import Example, load_examples
from demo.explore.tab import ExploreTab
from demo.learn.tab import LearnTab
from demo.rendering import wording
from demo.serving.api import Api
from demo.serving.blocks import OpenBlocks
from demo.serving.no_remote_fetch import disable_remote_fetch
from demo.serving.uploads import UploadStore


@dataclass(frozen=True)
class Resources:
    """Resources from which each tab takes what it needs."""

    systems: Systems  # by hospital; empty without weights
    problem: str  # why there are no weights, for the visitor
    samples: Sequence[Example]
    uploads: UploadStore
    certifier: IntervalNet | None  # the classifier whose answers are certified
    no_certifier: str  # why there is none, if its weights are damaged
    page: gr.Blocks  # for events of its opening

    @property
    def system(self) -> MedFedPure | None:
        """System of the hospital that reads by default, which every tab but Explore uses."""
        return next(iter(self.systems.values()), None)


# title and constructor of each tab, from left to right; the title in lower case is its DOM id
TABS: tuple[tuple[str, Callable[[Resources], object]], ...] = (
    (
        "Explore",
        lambda r: ExploreTab(
            r.systems, r.problem, r.samples, r.uploads, r.certifier, r.no_certifier, r.page
        ),
    ),
    ("Batch", lambda r: BatchTab(r.system, r.problem, r.uploads)),
    ("Learn", lambda r: LearnTab(r.system, r.samples)),
    ("About", lambda r: AboutTab()),
)


def build(
    systems: Systems | None = None,
    samples: Sequence[Example] | None = None,
    *,
    is_public: bool = False,
) -> gr.Blocks:
    """Build the page.

    Args:
        systems: the systems that read scans, by hospital; by default those that ship. Explore
            offers the choice, the other tabs use the first. Without valid weights the page says
            so and analyses nothing.
        samples: the example scans; by default those that ship with the page.
        is_public: True if strangers can open the page; the header then warns against uploads
            of patient data.

    Returns:
        Blocks with a queue, to be launched with `demo.serving.launch.build_launch_settings()`.
    """
    problem, certifier, no_certifier = "", None, ""
    if systems is None:
        try:
            systems = load_all()
        except WeightsError as error:
            systems, problem = {}, str(error)
        certifier, no_certifier = _load_certifier()
    samples = load_examples() if samples is None else samples
    disable_remote_fetch()
    with OpenBlocks(title="MedFedPure", fill_width=True, analytics_enabled=False) as blocks:
        uploads = UploadStore()
        resources = Resources(systems, problem, samples, uploads, certifier, no_certifier, blocks)
        gr.HTML(_render_header(problem, is_public), elem_id="header")
        with gr.Tabs(elem_id="tabs"):
            for title, build_tab in TABS:
                name = title.lower()
                with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                    build_tab(resources)
        Api(systems, problem, uploads)
    blocks.queue(max_size=64)
    return blocks


def _load_certifier() -> tuple[IntervalNet | None, str]:
    """Load the certified classifier if the weights have one; else return why it is damaged."""
    try:
        has_file = interval.FILE in read_manifest(WEIGHTS)
        return interval.load() if has_file else None, ""
    except WeightsError as error:
        return None, str(error)


def _render_header(problem: str, is_public: bool) -> str:
    notice = wording.PUBLIC_NOTICE if is_public else wording.NOTICE
    banner = f'<div class="mf-banner" role="alert">{escape(problem)}</div>' if problem else ""
    return (
        '<header class="mf-header"><h1>MedFedPure</h1>'
        "<p>Invisible attacks on a brain-tumour classifier, and the defence</p>"
        f'<p class="mf-notice">{escape(notice)}</p></header>{banner}'
    )
