"""The public endpoint: one scan in, one JSON object out, for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from demo import handlers
from demo.events import ON_CPU
from demo.intake import Inbox

API = """Reads one scan with the whole defence and returns one JSON object.

scan: a picture file. any_picture: read a colour picture too. seed: of the purifier's noise.
Returns tumour_probability (defended), tumour_probability_undefended (plain classifier),
tumour_probability_unpurified, flagged, score, score_name, scores, tau, confidence, t_star,
attention, expert_probabilities, timings_ms, seed.
Research and teaching only - not for clinical use."""


class Api:
    """One public endpoint; its widgets are never shown."""

    def __init__(self, system: MedFedPure | None, problem: str, inbox: Inbox) -> None:
        self.system, self.problem, self.inbox = system, problem, inbox
        with gr.Row(visible=False):
            inputs = [
                gr.File(label="scan"),
                gr.Checkbox(False, label="any_picture"),
                gr.Number(0, precision=0, label="seed"),
            ]
            gr.Button().click(
                self._read,
                inputs,
                gr.JSON(label="diagnosis"),
                api_name="read",
                api_description=API,
                preprocess=False,
                **ON_CPU,
            )

    def _read(
        self, stored: dict[str, Any] | None, any_picture: bool, seed: float
    ) -> dict[str, Any]:
        upload = self.inbox.take(stored["path"]) if stored else None
        if self.system is None:
            raise gr.Error(self.problem, print_exception=False)
        try:
            return handlers.read_once(self.system, upload, bool(any_picture), int(seed))
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
