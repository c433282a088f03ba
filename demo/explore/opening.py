"""Finished analysis of a synthetic example, read once and shown to every visitor who arrives."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from core.interval import IntervalNet
from core.scan import from_uint8
from core.weights import Systems
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.analysis.hospitals import HospitalReader
from demo.examples import Example
from demo.explore import analyse, results_view
from demo.explore.analyse import AnalysisView
from demo.rendering import wording

log = logging.getLogger(__name__)
LINE = (
    "This is a finished example; About says how often the defence holds. "
    "Choose a scan of your own, or press Analyse to repeat it."
)


class Opening:
    """Analysis of the first example without a known failure, made in the background."""

    def __init__(
        self,
        systems: Systems,
        samples: Sequence[Example],
        certifier: IntervalNet | None = None,
        no_certifier: str = "",
    ) -> None:
        self.sample = next((s for s in samples if not s.is_failure), samples[0])
        self.settings = AttackSettings(truth=wording.CLASSES[int(self.sample.tumour)])
        self.systems, self.certifier, self.no_certifier = systems, certifier, no_certifier
        worker = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._steps = [worker.submit(self._analyse), worker.submit(self._read_at_hospitals)]
        worker.shutdown(wait=False)

    def wait(self) -> Iterator[AnalysisView]:
        """Yield the analysis, then again with every hospital's reading; no scan in its view.

        Nothing that failed is yielded.
        """
        for step in self._steps:
            shown = step.result()
            if shown is not None:
                yield shown

    def _analyse(self) -> AnalysisView | None:
        system = next(iter(self.systems.values()))
        scan = from_uint8(self.sample.levels)
        try:
            current = Analysis(scan, self.settings, no_certificates=self.no_certifier)
            steps = analyse.analyse(system, current, {}, self.certifier, done=LINE)
            shown = functools.reduce(AnalysisView.update, steps)
        except Exception:  # whatever fails here would reach every visitor
            log.exception("the analysis of the example failed")
            return None
        return None if shown.analysis is None else shown

    def _read_at_hospitals(self) -> AnalysisView | None:
        shown = self._steps[0].result()
        if shown is None or shown.analysis is None or len(self.systems) < 2:
            return None
        reader = HospitalReader(self.systems, shown.analysis)
        try:
            while not reader.is_done:
                elsewhere = reader.read_next()
        except Exception:
            log.exception("the example could not be read at every hospital")
            return None
        analysis = replace(shown.analysis, elsewhere=elsewhere)
        return shown._replace(results=results_view.render(analysis), analysis=analysis)
