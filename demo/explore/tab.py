"""The tab Explore: its widgets, and the handlers of their events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from core.interval import IntervalNet
from core.weights import Systems
from demo.analysis.analysis import Analysis
from demo.examples import Example
from demo.explore import (
    analyse,
    attack_trajectory,
    counterfactual_view,
    results_view,
    selection,
    slices,
    viewer,
)
from demo.explore.analyse import AnalysisView
from demo.explore.attack_trajectory import AttackSteps
from demo.explore.cancellation import RequestGeneration
from demo.explore.controls import (
    Controls,
    enable,
    read_settings,
    render_d_note,
    render_eps_note,
    rescale,
)
from demo.explore.counterfactual_view import CounterfactualSection
from demo.explore.hospitals_view import HospitalsSection
from demo.explore.opening import Opening
from demo.explore.progress_strip import Stages
from demo.explore.series import Series, build_series
from demo.rendering import wording
from demo.report.buttons import ReportButtons
from demo.serving.events import ON_CPU, PRIVATE
from demo.serving.expiring_cache import ExpiringCache
from demo.serving.uploads import UploadStore

# One volume per visitor stays in memory for an hour after its last use; the largest is 1 GB
KEEP_SECONDS, KEEP_COUNT, KEEP_BYTES = 3600, 2000, 2**31
UNKNOWN_TRUTH = "unknown"  # the label of a scan that a visitor brings
# Gradio sends the last yielded value once more at the end: it must not be a late step
DROPPED_STEP = (gr.skip(),) * len(AnalysisView._fields)
PROGRESS_SECONDS = 0.15  # sending each step of an attack would take longer than the step
SAME_RESULTS = DROPPED_STEP[1:-1]
MARK_STALE_JS = "() => { document.querySelector('#main')?.classList.add('stale'); }"
# an early press of Analyse would read the previous scan, or none
MARK_CHOOSING_JS = """(...values) => {
  document.querySelector('#columns')?.classList.add('choosing');
  return values;
}"""
UNMARK_CHOOSING_JS = "() => { document.querySelector('#columns')?.classList.remove('choosing'); }"
UNMARK_STALE_JS = """(...values) => {
  document.querySelector('#main')?.classList.remove('stale');
  return values;
}"""


class ExploreTab:
    """Tab that attacks and reads one scan at a time, without and with the defence."""

    def __init__(
        self,
        systems: Systems,
        problem: str,
        samples: Sequence[Example],
        uploads: UploadStore,
        certifier: IntervalNet | None = None,
        no_certifier: str = "",
        page: gr.Blocks | None = None,
    ) -> None:
        self.systems, self.problem, self.uploads, self.page = systems, problem, uploads, page
        self.certifier, self.no_certifier = certifier, no_certifier
        self.idle = Stages()
        system = next(iter(systems.values()), None)
        self.opening = None
        if systems and samples:
            self.opening = Opening(systems, samples, certifier, no_certifier)
        self.series_cache: ExpiringCache[Series] = ExpiringCache(
            KEEP_SECONDS, KEEP_COUNT, KEEP_BYTES
        )
        self.generation = gr.State(
            RequestGeneration(), time_to_live=KEEP_SECONDS
        )  # each visitor gets a copy
        self.token = gr.State("", delete_callback=self.series_cache.drop)
        self.analysis = gr.State(None, time_to_live=KEEP_SECONDS)  # what a report is made of
        with gr.Row(elem_id="columns", equal_height=False):
            with gr.Column(elem_id="controls", scale=0, min_width=300):
                self.controls = Controls(samples, system, [*systems])
            with gr.Column(elem_id="main", scale=1, min_width=320):
                self.story = gr.HTML("", elem_id="story")
                self.stages = gr.HTML(self.idle.render(), elem_id="stages")
                with gr.Row(elem_id="reading", equal_height=False):
                    with gr.Column(elem_id="pictures", min_width=300):
                        with gr.Row(visible=False, elem_id="series", equal_height=True) as self.row:
                            self.slices = slices.build_slider()
                            self.scan = gr.Button(
                                "Read all slices",
                                size="sm",
                                interactive=bool(systems),
                                elem_id="scan-series",
                                min_width=130,
                                scale=0,
                            )
                        self.viewer = viewer.build_viewer()
                    with gr.Column(elem_id="outputs", min_width=300):
                        empty = results_view.render_empty(problem or selection.START_HINT)
                        self.results = gr.HTML(empty, elem_id="results")
                        ReportButtons(self.analysis)
                    with gr.Column(elem_id="evidence", min_width=300):
                        self.decision = gr.HTML("", elem_id="decision")
                        self.hospitals = HospitalsSection(
                            systems, self.analysis, self.generation, self.results
                        )
                        self.steps = AttackSteps(systems, self.analysis, self.generation)
                        self.changes = CounterfactualSection(
                            systems, self.analysis, self.generation
                        )
        self._connect_events()

    def _connect_events(self) -> None:
        c = self.controls
        # outputs that another slice or another scan replaces
        analysed = [
            self.stages, self.story, self.viewer, self.results, self.decision, self.analysis
        ]  # fmt: skip
        sections = self.hospitals, self.steps, self.changes
        below = [output for section in sections for output in section.outputs]
        shown = [self.slices, c.status, *analysed, *below]
        chosen = [c.truth, self.token, c.insist, self.row, *shown]  # what another scan replaces
        # "once" would wait forever for an event that was cancelled during a step
        runs: dict[str, Any] = {
            "trigger_mode": "multiple",
            "show_progress": "minimal",  # the place in the queue, where others are served first
            "api_visibility": "private",
            **ON_CPU,
        }
        analysis = c.run.click(
            self._analyse,
            [self.generation, self.token, c.insist, *c.defence, c.d, *c.settings],
            analysed,
            js=UNMARK_STALE_JS,
            show_progress_on=self.stages,
            **runs,
        )
        scoring = self.scan.click(
            self._score,
            [self.generation, self.token, *c.defence],
            self.slices,
            show_progress_on=self.slices,
            **runs,
        )
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        c.run.click(lambda: self._show_sections(None), None, below, **at_once)
        finished = analysis.then(self._show_sections, self.analysis, below, **at_once)
        self.hospitals.read_after(finished)
        asked = [
            self.steps.search, self.changes.event, self.hospitals.event,
            *self._connect_opening(chosen),
        ]  # fmt: skip
        both: dict[str, Any] = {"cancels": [analysis, scoring, *asked]}
        c.stop.click(
            self._stop,
            [self.generation, self.token, self.analysis],
            [self.stages, self.slices, *self.hospitals.outputs],
            **both,
            **at_once,
        )
        for source in (c.file, c.folder):
            # raw: our decoder reads the stored files, which Gradio has checked to be uploads
            source.upload(
                self._receive,
                [self.generation, source, self.token],
                [c.file, c.folder, *chosen],
                preprocess=False,
                js=MARK_CHOOSING_JS,
                **both,
                **PRIVATE,
            ).then(None, js=UNMARK_CHOOSING_JS, **PRIVATE)
        self.slices.input(
            self._slide, [self.generation, self.token, c.insist], shown,
            cancels=[analysis, *asked], trigger_mode="multiple", **at_once,
        )  # fmt: skip
        c.insist.input(self._insist, [self.token, c.insist], c.status, **at_once)
        mine = [self.generation, self.token]
        c.clear.click(self._clear, mine, [c.file, c.folder, *chosen], **both, **at_once)
        for button, sample in c.samples:
            handler = self._make_example_handler(sample)
            taken = button.click(handler, mine, chosen, js=MARK_CHOOSING_JS, **both, **at_once)
            taken.then(None, js=UNMARK_CHOOSING_JS, **PRIVATE)
        for control in c.result_inputs:
            control.input(None, None, None, js=MARK_STALE_JS, **PRIVATE)
        c.norm.input(rescale, c.norm, [c.eps, c.alpha, c.eps_note], **at_once)
        c.kind.input(enable, c.kind, [c.norm, c.eps, c.alpha, c.steps], **at_once)
        c.d.input(render_d_note, c.d, c.d_note, trigger_mode="always_last", **at_once)
        c.eps.input(
            render_eps_note, [c.norm, c.eps], c.eps_note, trigger_mode="always_last", **at_once
        )

    def _connect_opening(self, chosen: list[Any]) -> list[Any]:
        """Show the finished example to each visitor who arrives; return the event, if any."""
        if self.opening is None or self.page is None:
            return []
        return [self.page.load(self._open, [self.generation, self.token], chosen, **PRIVATE)]

    def _open(self, generation: RequestGeneration, token: str) -> Iterator[tuple[Any, ...]]:
        """Show the example's scan, then its finished analysis, unless the visitor was faster."""
        if self.opening is None or generation.reading:
            yield gr.skip()
            return
        outputs = self._take_example(self.opening.sample, token)
        yield outputs
        series = self.series_cache.get(outputs[1])
        for step in self.opening.wait():
            if generation.reading:
                yield gr.skip()
                return
            view = {**selection.view_selection(series).view, **(step.view or {})}
            shown = *step._replace(view=view), *self._show_sections(step.analysis)
            yield *((gr.skip(),) * (len(outputs) - len(shown))), *shown

    def _analyse(
        self,
        generation: RequestGeneration,
        token: str,
        insists: bool,
        hospital: int | None,
        score: str,
        policy: str,
        d: float,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        generation.end_reading()
        started = generation.reading
        series = self.series_cache.get(token)
        shown = selection.view_selection(series, insists=insists)
        system = self.systems.get(hospital)
        if system is None or series is None or shown.scan is None:
            sentence = self.problem or (
                selection.EXPIRED_MESSAGE if token and series is None else selection.START_HINT
            )
            yield self._show_nothing(shown.view, sentence)
            return
        try:
            settings = read_settings(*values)
            system = system.with_options(score, policy, float(d))
        except (TypeError, ValueError) as error:
            yield self._show_nothing(shown.view, f"Please correct a control: {error}.")
        else:
            yield self._show_nothing(shown.view, "The scan is being read.")
            answer = series.answer if series.read_with == (hospital, score, policy) else ""
            sent_at = 0.0
            current = Analysis(
                shown.scan, settings, doubts=shown.doubts, volume_answer=answer,
                no_certificates=self.no_certifier,
            )  # fmt: skip
            for step in analyse.analyse(system, current, shown.view, self.certifier):
                if generation.reading != started:
                    yield DROPPED_STEP
                    return
                progress = step.stages, *SAME_RESULTS, step.analysis
                if step.results is not None:
                    yield step
                elif time.monotonic() - sent_at > PROGRESS_SECONDS:
                    yield progress
                else:
                    continue
                sent_at = time.monotonic()
            generation.finish_reading()
            yield progress

    def _score(
        self,
        generation: RequestGeneration,
        token: str,
        hospital: int | None,
        score: str,
        policy: str,
    ) -> Iterator[Any]:
        started = generation.series
        series, system = self.series_cache.get(token), self.systems.get(hospital)
        if system is None or series is None:
            yield {}
            return
        series.read_with = hospital, score, policy
        for _ in slices.read_slices(system.with_options(score, policy), series):
            if generation.series != started:
                yield gr.skip()
                return
            yield series.get_slider_value()

    def _receive(self, generation: RequestGeneration, stored: Any, token: str) -> tuple[Any, ...]:
        generation.end()
        files = stored if isinstance(stored, list) else [stored] if stored else []
        upload = self.uploads.decode([file["path"] for file in files]) if files else None
        found = selection.receive(upload)
        refusal = found if isinstance(found, str) else ""
        series = found if isinstance(found, Series) else None
        return None, None, UNKNOWN_TRUTH, *self._replace_series(token, series, refusal)

    def _slide(
        self, generation: RequestGeneration, token: str, insists: bool, event: gr.EventData
    ) -> tuple[Any, ...]:
        generation.end_reading()
        series = self.series_cache.get(token)
        if series is None:
            return self._show_series(None, selection.EXPIRED_MESSAGE)
        series.index = min(max(int(event.index), 0), len(series.volume) - 1)
        return self._show_series(series, insists=insists)

    def _insist(self, token: str, wanted: bool) -> str:
        return selection.view_selection(self.series_cache.get(token), insists=wanted).line

    def _stop(
        self, generation: RequestGeneration, token: str, analysis: Analysis | None
    ) -> tuple[Any, ...]:
        generation.end()
        line = self.idle.set("Stopped: what is shown is incomplete.", "idle")
        slider = _get_slider_value(self.series_cache.get(token))
        return line.render(), slider, *self.hospitals.show(analysis)

    def _clear(self, generation: RequestGeneration, token: str) -> tuple[Any, ...]:
        generation.end()
        outputs = self._replace_series(token, None, hint=wording.CLEARED_MESSAGE)
        return None, None, UNKNOWN_TRUTH, *outputs

    def _make_example_handler(
        self, sample: Example
    ) -> Callable[[RequestGeneration, str], tuple[Any, ...]]:
        """Make the handler of an example's button."""

        def take(generation: RequestGeneration, token: str) -> tuple[Any, ...]:
            generation.end()
            return self._take_example(sample, token)

        return take

    def _take_example(self, sample: Example, token: str) -> tuple[Any, ...]:
        """Return the truth of an example, and all outputs that show its scan."""
        series = build_series(sample.levels)
        truth = wording.CLASSES[int(sample.tumour)]
        return truth, *self._replace_series(token, series, sample.describe())

    def _replace_series(
        self, token: str, series: Series | None, words: str = "", *, hint: str = ""
    ) -> tuple[Any, ...]:
        """Replace the visitor's series; return its key and all outputs that show it."""
        self.series_cache.drop(token)
        if series is not None:
            self.series_cache.put(series.key, series, series.volume.data.nbytes)
        insist = gr.update(visible=bool(series and series.refusal), value=False)
        row = gr.update(visible=series is not None and len(series.volume) > 1)
        key = series.key if series else ""
        return key, insist, row, *self._show_series(series, words, hint=hint)

    def _show_series(
        self, series: Series | None, words: str = "", *, insists: bool = False, hint: str = ""
    ) -> tuple[Any, ...]:
        shown = selection.view_selection(series, words, insists=insists)
        hint = (
            hint
            or self.problem
            or (selection.START_HINT if shown.scan is None else selection.READY_MESSAGE)
        )
        nothing = self._show_nothing(shown.view, hint)
        return _get_slider_value(series), shown.line, *nothing, *self._show_sections(None)

    def _show_nothing(self, view: viewer.View, sentence: str) -> AnalysisView:
        """Return the outputs of an analysis before there is one."""
        return AnalysisView(self.idle.render(), "", view, results_view.render_empty(sentence), "")

    def _show_sections(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """Return the outputs of the sections under the results; empty without an analysis."""
        return (
            *self.hospitals.show(analysis),
            *attack_trajectory.show(analysis),
            *counterfactual_view.show(analysis),
        )


def _get_slider_value(series: Series | None) -> dict[str, Any]:
    return series.get_slider_value() if series else {}
