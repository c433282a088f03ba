"""The tab Explore: its widgets, and the handlers of their events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from core.smoothing import Smoothed
from core.weights import Systems
from demo.analysis.analysis import Analysis
from demo.examples import Example
from demo.explore import analyse, attack_trajectory, results_view, selection, slices, viewer
from demo.explore.analyse import AnalysisView
from demo.explore.attack_trajectory import AttackSteps
from demo.explore.cancellation import RequestGeneration
from demo.explore.certificate import CertificateSection
from demo.explore.controls import Controls, enable, eps_note, read_settings, rescale
from demo.explore.progress_strip import Stages
from demo.explore.series import Series, of_levels
from demo.rendering import wording
from demo.report.buttons import ReportButtons
from demo.serving.events import ON_CPU, PRIVATE
from demo.serving.expiring_cache import ExpiringCache
from demo.serving.uploads import UploadStore

# What visitors look at stays in memory: one volume each, an hour from its last use, and never
# more of them than this; the largest that core opens is 1 GB.
KEEP_SECONDS, KEEP_COUNT, KEEP_BYTES = 3600, 64, 2**31
UNKNOWN_TRUTH = "unknown"  # the label of a scan that a visitor brings
# What is yielded last is sent once more at the end: a step that came too late must not be that.
DROPPED_STEP = (gr.skip(),) * len(AnalysisView._fields)
MARK_STALE_JS = "() => { document.querySelector('#main')?.classList.add('stale'); }"
# a press of Analyse before the choice has come through would read the scan before it, or none
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
    """One scan at a time: chosen, attacked, read without and with the defence."""

    def __init__(
        self,
        systems: Systems,
        problem: str,
        samples: Sequence[Example],
        uploads: UploadStore,
        smoothed: Smoothed | None = None,
        no_smoothed: str = "",
    ) -> None:
        self.systems, self.problem, self.uploads = systems, problem, uploads
        self.idle = Stages.of(len(systems))
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
                self.controls = Controls(samples, bool(systems), [*systems])
            with gr.Column(elem_id="main", scale=1, min_width=320):
                self.stages = gr.HTML(self.idle.html(), elem_id="stages")
                with gr.Row(elem_id="reading", equal_height=False):
                    with gr.Column(elem_id="pictures", min_width=300):
                        with gr.Row(visible=False, elem_id="series", equal_height=True) as self.row:
                            self.slices = slices.component()
                            self.scan = gr.Button(
                                "Scan the series",
                                size="sm",
                                interactive=bool(systems),
                                elem_id="scan-series",
                                min_width=130,
                                scale=0,
                            )
                        self.viewer = viewer.component()
                    with gr.Column(elem_id="outputs", min_width=300):
                        empty = results_view.empty(problem or selection.START_HINT)
                        self.results = gr.HTML(empty, elem_id="results")
                        ReportButtons(self.analysis)
                    with gr.Column(elem_id="evidence", min_width=300):
                        self.decision = gr.HTML("", elem_id="decision")
                        self.steps = AttackSteps(systems, self.analysis, self.generation)
                        self.certificate = CertificateSection(
                            smoothed, no_smoothed, self.analysis, self.generation
                        )
        self._events()

    def _events(self) -> None:
        c = self.controls
        # what another slice changes, and what another scan does: nothing of an earlier one stays
        analysed = [self.stages, self.viewer, self.results, self.decision, self.analysis]
        below = [*self.steps.outputs, *self.certificate.outputs]
        shown = [self.slices, c.status, *analysed, *below]
        chosen = [c.truth, self.token, c.insist, self.row, *shown]
        # "once" would wait for ever for an event that was cancelled in the middle of a step
        runs: dict[str, Any] = {
            "trigger_mode": "multiple",
            "show_progress": "minimal",  # the place in the queue, where others are served first
            "api_visibility": "private",
            **ON_CPU,
        }
        analysis = c.run.click(
            self._analyse,
            [self.generation, self.token, c.insist, c.hospital, *c.settings],
            analysed,
            js=UNMARK_STALE_JS,
            show_progress_on=self.stages,
            **runs,
        )
        scoring = self.scan.click(
            self._score,
            [self.generation, self.token, c.hospital],
            self.slices,
            show_progress_on=self.slices,
            **runs,
        )
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        c.run.click(lambda: self._below(None), None, below, **at_once)
        analysis.then(self._below, self.analysis, below, **at_once)
        asked = [self.steps.search, self.certificate.event]
        both: dict[str, Any] = {"cancels": [analysis, scoring, *asked]}
        c.stop.click(
            self._stopped,
            [self.generation, self.token],
            [self.stages, self.slices],
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
            taken = button.click(
                self._taker(sample), mine, chosen, js=MARK_CHOOSING_JS, **both, **at_once
            )
            taken.then(None, js=UNMARK_CHOOSING_JS, **PRIVATE)
        for control in c.watched:
            control.input(None, None, None, js=MARK_STALE_JS, **PRIVATE)
        c.norm.input(rescale, c.norm, [c.eps, c.alpha, c.eps_note], **at_once)
        c.kind.input(enable, c.kind, [c.norm, c.eps, c.alpha, c.steps], **at_once)
        c.eps.input(eps_note, [c.norm, c.eps], c.eps_note, trigger_mode="always_last", **at_once)

    def _analyse(
        self,
        generation: RequestGeneration,
        token: str,
        insists: bool,
        hospital: int | None,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        started = generation.reading
        series = self.series_cache.get(token)
        shown = selection.selected_slice_view(series, insists=insists)
        system = self.systems.get(hospital)
        if system is None or shown.scan is None:
            sentence = self.problem or (
                selection.EXPIRED_MESSAGE if token and series is None else selection.START_HINT
            )
            yield AnalysisView(self.idle.html(), shown.view, results_view.empty(sentence))
            return
        try:
            settings = read_settings(*values)
        except (TypeError, ValueError) as error:
            refusal = results_view.empty(f"Please correct a control: {error}.")
            yield AnalysisView(self.idle.html(), shown.view, refusal)
        else:
            scan, view = shown.scan, shown.view
            for step in analyse.analyse(system, scan, view, settings, self.systems):
                if generation.reading != started:
                    yield DROPPED_STEP
                    return
                yield step

    def _score(
        self, generation: RequestGeneration, token: str, hospital: int | None
    ) -> Iterator[Any]:
        started = generation.series
        series, system = self.series_cache.get(token), self.systems.get(hospital)
        if system is None or series is None:
            yield {}
            return
        for _ in slices.score(system, series):
            if generation.series != started:
                yield gr.skip()
                return
            yield series.marks()

    def _receive(self, generation: RequestGeneration, stored: Any, token: str) -> tuple[Any, ...]:
        generation.end()
        files = stored if isinstance(stored, list) else [stored] if stored else []
        upload = self.uploads.decode([file["path"] for file in files]) if files else None
        found = selection.receive(upload)
        refusal = found if isinstance(found, str) else ""
        series = found if isinstance(found, Series) else None
        return None, None, UNKNOWN_TRUTH, *self._chosen(token, series, refusal)

    def _slide(
        self, generation: RequestGeneration, token: str, insists: bool, event: gr.EventData
    ) -> tuple[Any, ...]:
        generation.end_reading()
        series = self.series_cache.get(token)
        if series is None:
            return self._shown(None, selection.EXPIRED_MESSAGE)
        series.index = min(max(int(event.index), 0), len(series.volume) - 1)
        return self._shown(series, insists=insists)

    def _insist(self, token: str, wanted: bool) -> str:
        return selection.selected_slice_view(self.series_cache.get(token), insists=wanted).line

    def _stopped(self, generation: RequestGeneration, token: str) -> tuple[str, dict[str, Any]]:
        generation.end()
        line = self.idle.set("Stopped: what is shown is incomplete.", "idle")
        return line.html(), _marks(self.series_cache.get(token))

    def _clear(self, generation: RequestGeneration, token: str) -> tuple[Any, ...]:
        generation.end()
        return None, None, UNKNOWN_TRUTH, *self._chosen(token, None, hint=wording.CLEARED_MESSAGE)

    def _taker(self, sample: Example) -> Callable[[RequestGeneration, str], tuple[Any, ...]]:
        """The handler of an example's button: takes its scan, and sets the truth as drawn."""
        truth = wording.CLASSES[int(sample.tumour)]

        def take(generation: RequestGeneration, token: str) -> tuple[Any, ...]:
            generation.end()
            return truth, *self._chosen(token, of_levels(sample.levels), sample.sentence())

        return take

    def _chosen(
        self, token: str, series: Series | None, words: str = "", *, hint: str = ""
    ) -> tuple[Any, ...]:
        """Puts a series in place of the one before; its key, and all that is shown of it."""
        self.series_cache.drop(token)
        if series is not None:
            self.series_cache.put(series.key, series, series.volume.data.nbytes)
        insist = gr.update(visible=bool(series and series.refusal), value=False)
        row = gr.update(visible=series is not None and len(series.volume) > 1)
        key = series.key if series else ""
        return key, insist, row, *self._shown(series, words, hint=hint)

    def _shown(
        self, series: Series | None, words: str = "", *, insists: bool = False, hint: str = ""
    ) -> tuple[Any, ...]:
        shown = selection.selected_slice_view(series, words, insists=insists)
        hint = (
            hint
            or self.problem
            or (selection.START_HINT if shown.scan is None else selection.READY_MESSAGE)
        )
        nothing = AnalysisView(
            self.idle.html(), shown.view, results_view.empty(hint)
        )  # of an analysis, yet
        return _marks(series), shown.line, *nothing, *self._below(None)

    def _below(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """The values of the sections under the results; empty without an analysis."""
        return *attack_trajectory.show(analysis), *self.certificate.show(analysis)


def _marks(series: Series | None) -> dict[str, Any]:
    return series.marks() if series else {}
