"""Sentences on the effect of the attack and of the defence in one analysis."""

from __future__ import annotations

from core.diagnosis import Diagnosis
from demo.analysis.analysis import Analysis
from demo.rendering import wording
from demo.rendering.stability import describe_flip


def collect_verdicts(a: Analysis) -> list[tuple[str, str]]:
    """Return answers not to rely on, doubts about the file, and effects of attack and defence.

    Each is a tone ('good', 'bad', 'note') and a sentence; none before the first reading.
    """
    if a.clean is None:
        return []
    warnings = [words for name, d in a.readings if (words := describe_flip(name, d))]
    effects = _collect_effects(a, a.clean)
    if warnings:  # no praise for an answer that nobody should rely on
        effects = [("note" if tone == "good" else tone, words) for tone, words in effects]
    return [
        *(("bad", words) for words in warnings),
        *(("note", doubt) for doubt in a.doubts),
        *effects,
    ]


def _collect_effects(a: Analysis, clean: Diagnosis) -> list[tuple[str, str]]:
    if not clean.can_judge:
        return [wording.describe_refusal("Clean")]
    truth, before = a.settings.truth, name_outputs(clean)
    clean_outcome = wording.describe_clean_outcome(*before, truth)
    if a.attacked is None:
        return [clean_outcome]
    verdicts = [("note", wording.describe_change(a.change[1], a.attacked.flagged))]
    if a.attacked.can_judge:
        after, aim = name_outputs(a.attacked), a.settings.aim
        verdicts.append(wording.describe_attack_outcome(before[0], after[0], truth, aim))
        verdicts.append(wording.describe_defence_outcome(before[1], after[1], truth, aim))
    else:
        verdicts.append(wording.describe_refusal("Attacked"))
    return [*verdicts, clean_outcome]


def name_outputs(d: Diagnosis) -> tuple[str, str]:
    """Name the outputs without and with defence."""
    return wording.name_class(d.tumour_probability_undefended), wording.name_defended(d)
