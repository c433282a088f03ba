"""Value of the viewer: the computed numbers, unchanged, and their place."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.attacks import Step
from core.pipeline import MedFedPure
from core.scan import Volume, Window, to_uint8
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.explore import viewer
from demo.explore.series import Series, build_series

EndsAt = Callable[[Tensor], tuple[Step, ...]]


def decode_layer(layer: dict[str, Any]) -> np.ndarray:
    numbers = np.frombuffer(base64.b64decode(layer["data"]), "<" + layer["type"])
    values: np.ndarray = numbers.reshape(layer["shape"]) * np.float64(layer["scale"])
    return values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u1"),
        ([-1, 300], "i2"),
        ([0, 65535], "u2"),
        ([-1, 65535], "f4"),
        ([0.5, 7], "f4"),
    ],
)
def test_values_arrive_exactly_in_the_smallest_type(values: list[float], kind: str) -> None:
    sent = viewer.encode_layer(np.array([values, values[::-1]], dtype=np.float32))
    assert sent["type"] == kind
    assert decode_layer(sent).tolist() == [values, values[::-1]]


def test_the_pictures_of_an_analysis_are_those_computed(
    system: MedFedPure, scan: Tensor, ends_at: EndsAt
) -> None:
    attacked = ((scan * 255 + 3).clamp(max=255).round() / 255).float()
    clean = system.read(scan)
    found = viewer.build_layers(Analysis(scan, AttackSettings(), ends_at(attacked), clean))
    assert (decode_layer(found["attacked"]) == to_uint8(attacked)[0]).all()
    assert (decode_layer(found["clean_purified"]) == to_uint8(clean.purified)[0]).all()
    error = clean.error_map.sqrt().numpy() * 255
    assert np.abs(decode_layer(found["clean_error"]) - error).max() <= viewer.ERROR_STEP / 2 + 1e-4
    assert "attacked_error" not in found


@pytest.mark.parametrize(
    ("truth", "tones"),
    [
        ("unknown", ["", "", "bad", "good"]),  # as on the clean scan
        ("tumour", ["good", "good", "bad", "good"]),
        ("no tumour", ["bad", "bad", "good", "bad"]),
    ],
)
def test_captions_say_each_output_and_whether_it_is_right(
    system: MedFedPure, scan: Tensor, ends_at: EndsAt, truth: str, tones: list[str]
) -> None:
    known = replace(
        system.read(scan), novelty=-9.0, novelty_limit=0.0, policy="floor",
        tumour_probability_undefended=0.9, tumour_probability=0.9,
    )  # fmt: skip
    attacked = replace(known, tumour_probability_undefended=0.1)
    settings = AttackSettings(truth=truth)
    shown = viewer.build_layers(Analysis(scan, settings, ends_at(scan), known, attacked))
    places = ("original", "clean_purified", "attacked", "attacked_purified")
    captions = [shown["captions"][place] for place in places]
    assert [tone for tone, _ in captions] == tones
    assert [words for _, words in captions] == [
        "without defence: tumour", "with defence: tumour",
        "without defence: no tumour", "with defence: tumour",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("truth", "undefended", "tone"),
    [("unknown", 0.1, ""), ("tumour", 0.1, ""), ("tumour", 0.9, "good"), ("no tumour", 0.9, "bad")],
)
def test_a_scan_that_is_read_as_it_came_holds_both_outputs(
    system: MedFedPure, scan: Tensor, truth: str, undefended: float, tone: str
) -> None:
    read = replace(
        system.read(scan), novelty=-9.0, novelty_limit=0.0, t_star=35, policy="picture",
        tumour_probability_undefended=undefended, tumour_probability=0.9,
    )  # fmt: skip
    shown = viewer.build_layers(Analysis(scan, AttackSettings(truth=truth), clean=read))
    without = "tumour" if undefended > 0.5 else "no tumour"
    both = f"without defence: {without}; with defence: tumour"
    assert shown["captions"]["original"] == (tone, both)
    assert shown["captions"]["clean_purified"] == ("", "purified at t* = 35, to be looked at")


def test_where_there_is_no_map_its_place_says_why(system: MedFedPure, scan: Tensor) -> None:
    paper = system.with_options("paper").read(scan)
    shown = viewer.build_layers(Analysis(scan, AttackSettings(), clean=paper))
    assert shown["clean_evidence"] is None
    assert "which the error map shows" in shown["blanks"]["clean_evidence"]
    fused = viewer.build_layers(Analysis(scan, AttackSettings(), clean=system.read(scan)))
    assert (fused["clean_evidence"] is None) == ("clean_evidence" in fused["blanks"])


def test_a_canonical_scan_is_sent_once(scan: Tensor) -> None:
    series = build_series(to_uint8(scan))
    shown = viewer.build_view(series, series.get_scan())
    assert shown["file"] is None and (decode_layer(shown["scan"]) == to_uint8(scan)[0]).all()


@pytest.mark.parametrize("levels", [(100.0, 1100.0), (1100.0, 100.0)])
def test_windows_are_ranges_of_what_the_models_see(levels: tuple[float, float]) -> None:
    data = np.linspace(0, 2100, 40 * 50, dtype=np.float32).reshape(1, 40, 50)
    series = Series(Volume(data, levels, "DICOM", (Window("file 1", 600, 500),)))
    shown = viewer.build_view(series, series.get_scan())
    windows = {name: (low, high) for name, low, high in shown["windows"]}
    assert shown["windows"][0][0] == viewer.WINDOW_NAMES["auto"]
    assert windows[viewer.WINDOW_NAMES["auto"]] == pytest.approx((0, 1))
    assert windows["the file's own 1"] == pytest.approx((0.25, 0.75))
    low, high = windows[viewer.WINDOW_NAMES["full"]]
    ends = sorted(shown["black"] + g * (shown["white"] - shown["black"]) for g in (low, high))
    assert ends == pytest.approx([0, 2100])
    assert (decode_layer(shown["file"]) == data[0]).all()  # whatever the window


@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 100), None), ((100, 60), (1.0, 1.0)), ((60, 100), (2.0, 0.5))]
)
def test_the_file_s_pixels_lie_where_the_models_see_them(
    shape: tuple[int, int], spacing: tuple[float, float] | None
) -> None:
    data = np.zeros((1, *shape), dtype=np.float32)
    row, column = shape[0] // 4, shape[1] // 5
    data[0, row : row + 8, column : column + 8] = 255  # more than a few pixels: not blank
    series = Series(Volume(data, (0.0, 255.0), "DICOM", spacing=spacing))
    scan = series.get_scan()
    left, top, width, height = viewer.build_view(series, scan)["file"]["rect"]
    shown = left + (column + 4) / shape[1] * width, top + (row + 4) / shape[0] * height
    rows, columns = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    mass = scan[0] / scan.sum()
    seen = float((mass * (columns + 0.5)).sum()) / 224, float((mass * (rows + 0.5)).sum()) / 224
    assert shown == pytest.approx(seen, abs=0.5 / 60)


def test_a_huge_slice_is_sent_as_means_and_says_so() -> None:
    data = np.arange(1, 2500 * 40 + 1, dtype=np.float32).reshape(1, 2500, 40) % 250
    shown = viewer.build_view(Series(Volume(data, (0.0, 255.0), "picture")))
    assert shown["file"]["reduced"] == 3 and max(shown["file"]["shape"]) <= viewer.MAX_SIDE
    first = decode_layer(shown["file"])[0, 0]
    assert first == pytest.approx(data[0, :3, :3].mean(), abs=0.5)
