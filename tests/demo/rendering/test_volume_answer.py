"""Answer for a volume in words: what it rests on, and over how many slices."""

from __future__ import annotations

from demo.analysis.volume import SliceReading
from demo.rendering.volume_answer import describe_answer


def judge(*log_odds: float | None) -> dict[int, SliceReading | None]:
    """Make the readings of a volume: None cannot be judged."""
    return {
        n: SliceReading(0.0, False, odds is not None, odds or 0.0, None)
        for n, odds in enumerate(log_odds)
    }


def test_the_answer_says_what_it_rests_on() -> None:
    assert describe_answer(judge(None, 0.0, None)) == (
        "Answer for the volume, with defence: tumour 50 % (by slice 2). Most slices, 2 of 3, "
        "cannot be judged. The rule: the answer of the slice that is judged; not measured on "
        "whole volumes."
    )
    assert describe_answer(judge(-2.0, None, -2.0, -2.0, -4.0)) == (
        "Answer for the volume, with defence: no tumour 88 % (by slices 1, 3 and 4); 0 of 4 slices "
        "say tumour by themselves. The rule: the highest mean of the log-odds over 3 slices in a "
        "row, where up to 2 that are blank or cannot be judged are passed over; not measured on "
        "whole volumes."
    )


def test_the_answer_says_over_how_many_slices_it_is() -> None:
    far = (None,) * 3
    assert describe_answer(judge(-9.0, *far, 1.0, 1.0, *far, 9.0)) == (
        "Answer for the volume, with defence: tumour 73 % (by slices 5 and 6); 3 of 4 slices say "
        "tumour by themselves. Most slices, 6 of 10, cannot be judged. The rule: the highest mean "
        "of the log-odds over 2 slices in a row, where up to 2 that are blank or cannot be judged "
        "are passed over (2 judged too far from others); not measured on whole volumes."
    )
    assert describe_answer(judge(-1.0, *far, 0.0)) == (
        "Answer for the volume, with defence: tumour 50 % (by slice 5); 1 of 2 slices say tumour "
        "by themselves. Most slices, 3 of 5, cannot be judged. The rule: the highest log-odds of "
        "one slice, as no two that can be judged are neighbours; not measured on whole volumes."
    )


def test_without_a_slice_that_is_judged_there_is_no_answer() -> None:
    none = "No slice can be judged, so that there is no answer for the volume."
    assert describe_answer(judge(None, None)) == describe_answer({0: None}) == none
