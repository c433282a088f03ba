"""Finished analysis of a synthetic example, read once and shown to every visitor who arrives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from core.pipeline import MedFedPure
from core.scan import from_uint8
from demo.analysis.attack import AttackSettings
from demo.examples import Example
from demo.explore import analyse
from demo.explore.analyse import AnalysisView
from demo.rendering import wording

LINE = "This is a finished example. Choose a scan of your own, or press Analyse to repeat it."


class Opening:
    """Analysis of the first example without a known failure, made in the background."""

    def __init__(self, system: MedFedPure, samples: Sequence[Example]) -> None:
        self.sample = next((s for s in samples if not s.is_failure), samples[0])
        self.settings = AttackSettings(truth=wording.CLASSES[int(self.sample.tumour)])
        worker = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._future = worker.submit(self._analyse, system)
        worker.shutdown(wait=False)

    def wait(self) -> AnalysisView | None:
        """Return the finished analysis, its view without the scan; None if it failed."""
        return self._future.result()

    def _analyse(self, system: MedFedPure) -> AnalysisView | None:
        scan = from_uint8(self.sample.levels)
        steps = analyse.analyse(system, scan, {}, self.settings, done=LINE)
        shown = functools.reduce(AnalysisView.update, steps)
        return None if shown.analysis is None else shown
