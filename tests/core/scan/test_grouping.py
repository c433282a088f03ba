"""A stack has one plane and one weighting; the note names what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import get_refusal
from series_maker import (
    AXIAL,
    PLANES,
    build_frames,
    build_slice,
    place_frame,
    read_order,
    zip_files,
)

from core.scan import read_volume

MARKS = {
    "sagittal": ("A", "P", "S", "I"),
    "coronal": ("R", "L", "S", "I"),
    "axial": ("R", "L", "A", "P"),
}


@pytest.mark.parametrize("offset", [0, 3.3], ids=["coincident", "interleaved"])
def test_of_planes_in_one_file_the_axial_one_is_read(offset):
    frames = [place_frame(plane, n, offset * k) for k, plane in enumerate(PLANES) for n in range(4)]
    volume = read_volume(build_frames(frames))
    assert read_order(volume) == [8, 9, 10, 11]
    assert volume.marks == MARKS["axial"]
    assert (volume.gap, volume.spacing) == (10, (0.5, 0.75))
    assert volume.notes == (
        "Only slices of one plane, size and weighting are read together: 4 axial; "
        "left out: 4 sagittal, 4 coronal.",
    )


@pytest.mark.parametrize("plane", PLANES)
def test_of_planes_the_one_with_most_slices_is_read(plane):
    counts = {name: 5 if name == plane else 3 for name in PLANES}
    frames = [place_frame(name, n) for name, count in counts.items() for n in range(count)]
    volume = read_volume(build_frames(frames))
    start = 3 * list(PLANES).index(plane)
    assert read_order(volume) == list(range(start, start + 5))
    assert volume.marks == MARKS[plane]
    assert volume.gap == 10


def test_of_planes_in_several_files_of_one_series_the_axial_one_is_read():
    files = [
        build_slice(
            4 * k + n,
            ImageOrientationPatient=PLANES[plane],
            ImagePositionPatient=place_frame(plane, n)["PlanePositionSequence"][
                "ImagePositionPatient"
            ],
        )
        for k, plane in enumerate(PLANES)
        for n in range(4)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [8, 9, 10, 11]
    assert volume.marks == MARKS["axial"]
    assert "4 axial; left out: 4 sagittal, 4 coronal." in volume.notes[0]


def test_directions_that_differ_in_late_decimals_are_one_plane():
    """The angle counts: 0.05002 and 0.04998 lie on two sides of a rounding step."""
    files = []
    for n in range(12):
        tilt = (0.05002, 0.04998)[n % 2]
        directions = [1, 0, 0, 0, round(float(np.sqrt(1 - tilt**2)), 6), tilt]
        place = [0, -0.25 * n, 5 * n]
        files.append(build_slice(n, ImageOrientationPatient=directions, ImagePositionPatient=place))
    volume = read_volume(files)
    assert read_order(volume) == list(range(12))
    assert volume.gap == pytest.approx(5.006, abs=0.001)
    assert volume.notes == ()


@pytest.mark.parametrize(("degrees", "count"), [(2, 8), (5, 4)])
def test_planes_at_an_angle_are_two_stacks(degrees, count):
    turn = np.radians(degrees)
    tilted = [1, 0, 0, 0, float(np.cos(turn)), float(np.sin(turn))]
    files = [build_slice(n, ImageOrientationPatient=AXIAL if n < 4 else tilted) for n in range(8)]
    assert read_order(read_volume(files)) == list(range(count))


WEIGHTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "echo time": ({"EchoTime": "10"}, {"EchoTime": "20"}),
    "echo number": ({"EchoNumbers": "1"}, {"EchoNumbers": "2"}),
    "close echoes": ({"EchoTime": "30"}, {"EchoTime": "31.2"}),
    "repetition time": ({"RepetitionTime": "500"}, {"RepetitionTime": "4000"}),
    "inversion time": ({"InversionTime": "400"}, {"InversionTime": "2500"}),
    "flip angle": ({"FlipAngle": "3"}, {"FlipAngle": "20"}),
    "b-value": ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}),
    "magnitude and phase": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "M"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
    ),
    "sequence": ({"ScanningSequence": "SE"}, {"ScanningSequence": "IR"}),
    "sequence name": ({"SequenceName": "ep_b0"}, {"SequenceName": "ep_b1000"}),
    "zoom": ({"PixelSpacing": ["1", "1"]}, {"PixelSpacing": ["0.5", "0.5"]}),
}


@pytest.mark.parametrize("uid", ["1.2.3", ""], ids=["one UID", "no UID"])
@pytest.mark.parametrize("places", ["same", "interleaved", "unknown"])
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_two_weightings_never_lie_in_one_stack(kind, places, uid):
    """Numbers run against each other, as in two series of which one is numbered backwards."""
    files = []
    for k, weighting in enumerate(WEIGHTINGS[kind]):
        for n in range(6):
            place = {"same": 5 * n, "interleaved": 10 * n + 5 * k, "unknown": None}[places]
            files.append(
                build_slice(
                    10 * k + n,
                    SeriesInstanceUID=uid,
                    InstanceNumber=str(n if k == 0 else 6 - n),
                    ImagePositionPatient=[0, 0, place] if place is not None else None,
                    **weighting,
                )
            )
    volume = read_volume(files)
    assert sorted(read_order(volume)) == list(range(6))
    assert "left out: 6 axial" in volume.notes[0]


@pytest.mark.parametrize(
    "names", [{"SeriesNumber": "2"}, {"SeriesDescription": "T2"}, {"ProtocolName": "T2"}]
)
def test_series_without_uids_are_told_apart_by_what_names_them(names):
    files = [build_slice(n, SeriesInstanceUID="") for n in range(4)]
    files += [
        build_slice(n + 4, SeriesInstanceUID="", ImagePositionPatient=[0, 0, 5 * n], **names)
        for n in range(4)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2, 3]
    assert volume.notes == ("There are 2 series: the largest, 4 slices, is read.",)


@pytest.mark.parametrize("keyword", ["SeriesNumber", "SeriesDescription", "ProtocolName"])
def test_slices_of_one_uid_are_one_series(keyword):
    files = [build_slice(n, **({keyword: "7"} if n % 2 else {})) for n in range(6)]
    volume = read_volume(files)
    assert read_order(volume) == list(range(6))
    assert volume.notes == ()


@pytest.mark.parametrize("keyword", ["EchoTime", "InversionTime", "RepetitionTime", "PixelSpacing"])
def test_slices_that_lack_a_number_are_of_the_only_weighting(keyword):
    number = {keyword: ["1", "1"] if keyword == "PixelSpacing" else "10"}
    volume = read_volume([build_slice(n, **(number if n % 2 else {})) for n in range(6)])
    assert read_order(volume) == list(range(6))
    assert volume.notes == ()


def test_slices_that_lack_a_number_at_the_same_places_are_another_weighting():
    files = [
        build_slice(
            n, ImagePositionPatient=[0, 0, 5 * (n % 3)], **({"EchoTime": "9"} if n < 3 else {})
        )
        for n in range(6)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes[0].endswith("3 axial (echo time 9 ms); left out: 3 axial.")


def test_slices_that_lack_a_number_join_none_of_two_weightings():
    echoes = ["10", "80", "", "10", "80", "10"]
    files = [build_slice(n, EchoTime=echo) for n, echo in enumerate(echoes)]
    assert read_order(read_volume(files)) == [0, 3, 5]


def test_repetition_times_that_follow_the_heart_differ_at_the_same_places():
    times, count = ["700", "1240", "1230", "720"], 4
    apart = read_volume([build_slice(n, RepetitionTime=time) for n, time in enumerate(times)])
    assert read_order(apart) == list(range(count))
    together = [
        build_slice(n, RepetitionTime=time, ImagePositionPatient=[0, 0, 5 * (n % 2)])
        for n, time in enumerate(["700", "720", "1240", "1230"])
    ]
    assert read_order(read_volume(together)) == [0, 1]


def test_a_slice_of_unknown_plane_is_called_so():
    files = [
        build_slice(n, **({"ImageOrientationPatient": None} if n == 4 else {})) for n in range(5)
    ]
    volume = read_volume(files)
    assert volume.notes == (
        "Only slices of one plane, size and weighting are read together: 4 axial; "
        "left out: 1 of unknown plane.",
    )
    assert volume.doubts == ()


def test_alike_series_without_uids_are_not_mixed():
    """Nothing tells them apart but their order; equal numbers are no order."""
    files = [
        build_slice(
            10 * k + n,
            SeriesInstanceUID="",
            InstanceNumber=str(n if k == 0 else 6 - n),
            ImagePositionPatient=[0, 0, 5 * n],
        )
        for k in range(2)
        for n in range(6)
    ]
    assert read_order(read_volume(files)) == list(range(6))


def test_the_note_names_echo_times():
    files = [
        build_slice(n, EchoTime=echo, ImagePositionPatient=[0, 0, 5 * n])
        for echo in ("10", "90.5")
        for n in range(3)
    ]
    assert read_volume(files).notes == (
        "Only slices of one plane, size and weighting are read together: "
        "3 axial (echo time 10 ms); left out: 3 axial (echo time 90.5 ms).",
    )


def test_the_note_names_three_groups_at_most():
    files = [build_slice(k, EchoTime=str(10 * k + 10)) for k in range(7)]
    assert read_volume(files).notes[0].endswith("(echo time 40 ms) and 3 more.")


@pytest.mark.parametrize(
    "jitter",
    [
        {"RepetitionTime": [700, 1240, 860, 1010, 1180, 790]},
        {"EchoTime": [10, 10.01, 9.99, 10, 10.02, 10]},
        {"PixelSpacing": [[x, x] for x in (0.46875, 0.4688, 0.469, 0.46875, 0.47, 0.4687)]},
        {"AcquisitionNumber": [1, 2, 3, 4, 5, 6]},
    ],
    ids=lambda jitter: next(iter(jitter)),
)
def test_numbers_that_jitter_do_not_part_a_series(jitter):
    ((keyword, values),) = jitter.items()
    volume = read_volume([build_slice(n, **{keyword: v}) for n, v in enumerate(values)])
    assert read_order(volume) == list(range(6))
    assert volume.notes == ()


def test_echoes_in_one_multi_frame_file_are_told_apart():
    frames = [
        place_frame("axial", n) | {"MREchoSequence": {"EffectiveEchoTime": float(echo)}}
        for n in range(3)
        for echo in (10, 80)
    ]
    volume = read_volume(build_frames(frames))
    assert read_order(volume) == [0, 2, 4]
    assert "(echo time 80 ms)" in volume.notes[0]


def test_water_and_fat_in_one_multi_frame_file_are_told_apart():
    frames = [
        place_frame("axial", n)
        | {"MRImageFrameTypeSequence": {"FrameType": ["DERIVED", "PRIMARY", "DIXON", kind]}}
        for kind in ("WATER", "FAT")
        for n in range(3)
    ]
    assert read_order(read_volume(build_frames(frames))) == [0, 1, 2]


def test_many_time_points_do_not_outweigh_a_longer_stack():
    """The size of a series is its number of places, not of pictures."""
    files = [build_slice(n, SeriesInstanceUID="1.2.9") for n in range(5)]
    files += [build_slice(k, ImagePositionPatient=[0, 0, 5 * (k % 2)]) for k in range(8)]
    assert read_order(read_volume(zip_files(*files))) == [0, 1, 2, 3, 4]


def test_a_hundred_planes_are_told_apart_and_more_do_no_harm(monkeypatch):
    """Beyond the limit directions are rounded: no plane joins a stack of another."""
    monkeypatch.setattr("core.scan.dicom.grouping.MAX_PLANES", 3)
    files = [
        build_slice(
            n, ImageOrientationPatient=[1, 0, 0, 0, float(np.cos(turn)), float(np.sin(turn))]
        )
        for n, turn in enumerate(np.radians([0, 20, 40, 60, 60, 60, 80, 80]))
    ]
    assert read_order(read_volume(files)) == [3, 4, 5]


def test_more_pictures_than_can_be_grouped_are_refused(monkeypatch):
    monkeypatch.setattr("core.scan.dicom.grouping.MAX_PICTURES", 3)
    message = get_refusal(read_volume, [build_slice(n) for n in range(4)])
    assert message == "There are more than 3 pictures: send a single series."


def test_what_may_name_a_patient_is_compared_and_not_kept(caplog, capsys):
    names = {"SeriesDescription": "Secret", "ProtocolName": "Secret", "StudyInstanceUID": "9.9.9"}
    volume = read_volume(
        [build_slice(0, SeriesInstanceUID="", **names), build_slice(1, SeriesInstanceUID="")]
    )
    said = repr(volume) + caplog.text + "".join(capsys.readouterr())
    assert "Secret" not in said
    assert "9.9.9" not in said
    assert "2 series" in volume.notes[0]
