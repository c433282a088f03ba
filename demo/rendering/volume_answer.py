"""Answer for a volume in words."""

from __future__ import annotations

from collections.abc import Mapping

from demo.analysis.volume import MAX_PASSED_OVER, SliceReading, VolumeAnswer, answer_volume
from demo.rendering import wording


def describe_answer(readings: Mapping[int, SliceReading | None]) -> str:
    """Describe the answer for a volume by its slices' readings: what it rests on, and the rule."""
    found = [r for r in readings.values() if r is not None]
    judged = [r for r in found if r.can_judge]
    answer = answer_volume(readings)
    if answer is None:
        return "No slice can be judged, so that there is no answer for the volume."
    says = wording.name_class(answer.tumour_probability)
    confidence = wording.format_confidence(answer.tumour_probability)
    slices = f"slice{'s' * (len(answer.slices) > 1)} "
    slices += wording.list_words([str(n + 1) for n in answer.slices])
    alone = ""
    if len(judged) > 1:
        count = sum(r.log_odds >= 0 for r in judged)
        alone = f"; {count} of {len(judged)} slices say tumour by themselves"
    refused = len(found) - len(judged)
    most = f" Most slices, {refused} of {len(found)}, cannot be judged."
    return (
        f"Answer for the volume, with defence: {says} {confidence} (by {slices}){alone}."
        f"{most if refused > len(judged) else ''} The rule: {_describe_rule(answer, len(judged))}; "
        "not measured on whole volumes."
    )


def _describe_rule(answer: VolumeAnswer, judged: int) -> str:
    """Describe the rule of an answer, over as many slices as it rests on."""
    if judged == 1:
        return "the answer of the slice that is judged"
    width = len(answer.slices)
    if width == 1:
        return "the highest log-odds of one slice, as no two that can be judged are neighbours"
    rule = (
        f"the highest mean of the log-odds over {width} slices in a row, where up to "
        f"{MAX_PASSED_OVER} that are blank or cannot be judged are passed over"
    )
    return rule + (f" ({answer.apart} judged too far from others)" if answer.apart else "")
