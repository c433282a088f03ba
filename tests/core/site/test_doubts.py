"""Sets of scans that set no operating point, or look like one class."""

from __future__ import annotations

import pytest
import torch

from core.site.doubts import MIN_SCANS, check_scans, describe_doubt
from core.site.operating_point import SiteError


def mark(refused: int, judged: int) -> torch.Tensor:
    return torch.arange(refused + judged) < refused


@pytest.mark.parametrize(
    ("refused", "judged", "words"),
    [
        (0, 5, "Only 5 scans can be judged: an operating point needs at least 50."),
        (12, 49, "Only 49 scans can be judged"),
        (61, 60, "61 of 121 scans are unlike brain MRI and cannot be judged"),
        (0, 0, "Only 0 scans"),
    ],
)
def test_what_sets_no_operating_point_is_told_in_one_sentence(refused, judged, words) -> None:
    with pytest.raises(SiteError, match=words) as told:
        check_scans(mark(refused, judged))
    assert str(told.value).endswith(".") and "\n" not in str(told.value)


def test_enough_scans_pass() -> None:
    check_scans(mark(0, MIN_SCANS))
    check_scans(mark(60, 60))


def test_one_class_is_suspected_where_answers_are_one_sided_or_alike() -> None:
    both = torch.cat([torch.linspace(-4, -1, 50), torch.linspace(1, 4, 50)])
    assert describe_doubt(both) == ""
    assert describe_doubt(both.abs()) == "nearly all scans are read as 'tumour'"
    assert describe_doubt(-both.abs()) == "nearly all scans are read as 'no tumour'"
    few = torch.cat([-both.abs(), torch.full((4,), 3.0)])  # 4 of 104
    assert describe_doubt(few) == "nearly all scans are read as 'no tumour'"
    assert describe_doubt(both / 8) == "all scans are read nearly alike"
