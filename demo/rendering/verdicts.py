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
    clean_outcome = wording.describe_clean_outcome(*before, truth)
    if a.attacked is None:
        return [clean_outcome]
    verdicts = [("note", wording.describe_change(a.change[1]))]
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
