"""The sheet of counterfactuals: a row a scan, and words that are true of its pictures."""

from __future__ import annotations

import numpy as np
import torch

from core.pipeline import MedFedPure
from core.scan import to_uint8
from demo.analysis.counterfactual import Change
from demo.phantom import draw_phantom
from tools.draw_counterfactuals import COLUMNS, GAP, SIDE, TITLE, _list_pictures, draw_sheet


def test_every_scan_has_a_row_with_its_scan_first(tiny_system: MedFedPure) -> None:
    scans = [draw_phantom(seed, tumour=seed == 1) for seed in (0, 1)]
    sheet = np.asarray(draw_sheet(tiny_system, scans))
    assert sheet.shape == (
        TITLE + 2 * (SIDE + TITLE + GAP), len(COLUMNS) * (SIDE + GAP) - GAP, 3
    )  # fmt: skip
    corner = sheet[TITLE : TITLE + SIDE, :SIDE]
    assert np.ptp(corner.astype(int), axis=2).max() == 0  # grey, as scans are
    assert corner.std() > 10


def test_words_say_whether_the_answer_turned(tiny_system: MedFedPure) -> None:
    scan = draw_phantom(0, tumour=False)
    darker = (scan - 10 / 255).clamp(0, 1)
    changes = (Change("mixture", 0.9, 0.2, darker), Change("plain classifier", 0.1, 0.2, scan))
    pictures = _list_pictures(scan, changes)
    assert [words for _, words in pictures] == [
        "read: tumour, no tumour", "read: no tumour", "at most 10 of 255 levels",
        "still read: no tumour", "at most 0 of 255 levels",
    ]  # fmt: skip
    assert (pictures[0][0][..., 0] == to_uint8(scan)[0]).all()
    assert not pictures[4][0].any() and torch.equal(changes[1].scan, scan)
