"""A picture is a volume of one slice; windows do not change the models' input."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from core.scan import Volume, Window, read_scan, read_volume, to_image, to_uint8
from core.scan.volume import Doubt
from demo.phantom import draw_phantom


def ramp(slices: int = 3) -> np.ndarray:
    return np.indices((slices, 40, 60)).sum(0).astype(np.float32)


@pytest.mark.parametrize("factor", [1, 16, 257])
def test_a_picture_is_a_volume_of_one_slice_in_its_own_units(factor):
    deep = to_uint8(draw_phantom(5, tumour=True))[0].astype(np.uint16) * factor
    stored = Image.fromarray(deep if factor > 1 else deep.astype(np.uint8))
    buffer = io.BytesIO()
    stored.save(buffer, "PNG")
    volume = read_volume(buffer.getvalue())
    assert (volume.kind, len(volume), volume.notes, volume.marks) == ("picture", 1, (), None)
    assert np.array_equal(volume.data[0], deep)
    assert torch.equal(volume.slice(), read_scan(buffer.getvalue()))


def test_the_auto_window_is_what_the_models_see():
    (auto, full) = read_volume(to_image(draw_phantom(5, tumour=True))).windows
    assert auto == ("auto", 127.5, 255)
    assert full.width == 255


def test_own_windows_come_first_and_change_nothing():
    plain = Volume(ramp(), (0.0, 100.0), "NIfTI")
    windowed = Volume(ramp(), (0.0, 100.0), "NIfTI", (Window("file 1", 5.0, 10.0),))
    assert windowed.windows[0].name == "file 1"
    assert windowed.windows[1:] == plain.windows
    assert torch.equal(plain.slice(1), windowed.slice(1))


def test_levels_may_run_downwards():
    up = Volume(ramp(), (0.0, 100.0), "DICOM")
    down = Volume(ramp(), (100.0, 0.0), "DICOM")
    inside = (slice(None), slice(40, 184))
    assert (up.slice()[inside] + down.slice()[inside] - 1).abs().max() < 1.5 / 255
    assert up.windows == down.windows


def test_doubts_are_notes_too():
    volume = Volume(ramp(), (0, 1), "DICOM", notes=("a fact", Doubt("a doubt")))
    assert volume.doubts == ("a doubt",)
    assert volume.notes == ("a fact", "a doubt")
    assert type(volume.doubts[0]) is str


def test_values_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Volume(ramp(), (0.0, 1.0), "NIfTI").data[0] = 0


def test_what_lies_outside_the_levels_is_black_or_white():
    scan = Volume(ramp(1), (20.0, 60.0), "NIfTI").slice(size=60)
    assert scan[0, 10:25, 0:5].max() == 0
    assert scan[0, 30:50, 55:].min() == 1
