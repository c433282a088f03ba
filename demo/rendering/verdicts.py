"""Sentences on the effect of the attack and of the defence in one analysis."""

from __future__ import annotations

from core.diagnosis import Diagnosis
from demo.analysis.analysis import Analysis
from demo.rendering import wording


def collect_verdicts(a: Analysis) -> list[tuple[str, str]]:
    """Return the effects of attack and defence, each a tone ('good', 'bad', 'note') and text."""
    if a.clean is None:
        return []
    if not a.clean.can_judge:
        return [wording.describe_refusal("Clean")]
    truth, before = a.settings.truth, name_outputs(a.clean)
    verdicts = [wording.describe_clean_outcome(*before, truth)]
    if a.attacked is not None and not a.attacked.can_judge:
        verdicts.append(wording.describe_refusal("Attacked"))
    elif a.attacked is not None:
        after = name_outputs(a.attacked)
        aim = a.settings.aim
        verdicts.append(wording.describe_attack_outcome(before[0], after[0], truth, aim))
        verdicts.append(wording.describe_defence_outcome(before[1], after[1], truth, aim))
    return verdicts


def name_outputs(d: Diagnosis) -> tuple[str, str]:
    """Name the outputs without and with defence."""
    return wording.name_class(d.tumour_probability_undefended), wording.name_defended(d)
