"""Sentences on the effect of the attack and of the defence in one analysis."""

from __future__ import annotations

from core.diagnosis import Diagnosis
from demo.analysis.analysis import Analysis
from demo.rendering import wording
from demo.rendering.stability import describe_flip


def collect_verdicts(a: Analysis) -> list[tuple[str, str]]:
    """Return doubts about the file, effects of attack and defence, answers that flip easily.

    Each is a tone ('good', 'bad', 'note') and a sentence; none before the first reading.
    """
    if a.clean is None:
        return []
    flips = [describe_flip(name, d) for name, d in a.readings if d.can_judge]
    return [
        *(("note", doubt) for doubt in a.doubts),
        *_collect_effects(a, a.clean),
        *(("note", flip) for flip in flips if flip),
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
