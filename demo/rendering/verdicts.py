"""Sentences on the effect of the attack and of the defence in one analysis."""

from __future__ import annotations

from core.diagnosis import Diagnosis
from demo.analysis.analysis import Analysis
from demo.rendering import wording


def verdicts(a: Analysis) -> list[tuple[str, str]]:
    """Returns the effects of attack and defence, each a tone ('good', 'bad', 'note') and text."""
    if a.clean is None:
        return []
    if not a.clean.can_judge:
        return [wording.cannot_judge("Clean")]
    truth, before = a.settings.truth, outputs_of(a.clean)
    verdicts = [wording.harm(*before, truth)]
    if a.attacked is not None and not a.attacked.can_judge:
        verdicts.append(wording.cannot_judge("Attacked"))
    elif a.attacked is not None:
        after = outputs_of(a.attacked)
        aim = a.settings.aim
        verdicts.append(wording.attack_outcome(before[0], after[0], truth, aim))
        verdicts.append(wording.defence_outcome(before[1], after[1], truth, aim))
    return verdicts


def outputs_of(d: Diagnosis) -> tuple[str, str]:
    """Returns the outputs without and with defence."""
    return wording.label(d.tumour_probability_undefended), wording.defended(d)
