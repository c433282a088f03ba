"""Endpoint `read_volume`: all slices of a file, one answer, one sentence where there is none."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gradio as gr
import nibabel
import numpy as np
import pytest
import torch

from core.pipeline import MedFedPure
from core.pipeline import build as build_system
from core.scan import ScanError, read_volume, to_png
from core.weights import Systems, load_all
from demo.analysis.volume import read_slices
from demo.phantom import draw_phantom
from demo.rendering.volume_answer import describe_answer
from demo.serving.api import Api
from demo.serving.uploads import UploadStore, decode_upload
from demo.serving.volume_api import VOLUME_DESCRIPTION, read_whole
from tests.demo.browser.browsing import Served
from tests.demo.serving.schema import check_schema, list_keys
from tests.hospitals import COUNT, write
from tests.small_system import small_config


@pytest.fixture(scope="module")
def volume() -> bytes:
    """Build a NIfTI file of ten slices, the first and the last blank: more than one batch."""
    heads = [draw_phantom(n, n % 2 == 1)[0].numpy() * 800 for n in range(10)]
    heads[0] = heads[-1] = np.zeros_like(heads[0])
    image = nibabel.Nifti1Image(np.stack(heads, -1).astype(np.int16), np.eye(4))
    return bytes(image.to_bytes())


def make_api(systems: Systems, problem: str) -> Api:
    """Make the endpoints without their widgets."""
    api = Api.__new__(Api)
    api.systems, api.problem, api.uploads = systems, problem, UploadStore()
    return api


def test_the_description_is_the_output(mapping_system: MedFedPure, volume: bytes) -> None:
    answer = read_whole(mapping_system, decode_upload(volume), False, 0)
    check_schema(answer, list_keys(VOLUME_DESCRIPTION))
    assert "not for clinical use" in VOLUME_DESCRIPTION


def test_all_slices_are_read_and_the_answer_rests_on_three(
    mapping_system: MedFedPure, volume: bytes
) -> None:
    answer = read_whole(mapping_system, decode_upload(volume), False, 7)
    assert (answer["slices"], answer["read"], answer["blank"], answer["cannot_judge"]) == (
        10, 8, 2, 0
    )  # fmt: skip
    assert answer["kind"] == "NIfTI" and answer["seed"] == 7
    readings = answer["readings"]
    assert readings[0] is readings[-1] is None and len(readings) == 10
    assert [r["slice"] for r in readings[1:-1]] == [*range(2, 10)]
    for number in (2, 9):  # one of each batch
        alone = mapping_system.read(read_volume(volume).slice(number - 1), 7)
        found = readings[number - 1]
        assert found["tumour_probability"] == pytest.approx(alone.tumour_probability, abs=1e-6)
        assert (found["flagged"], found["can_judge"]) == (alone.flagged, alone.can_judge)
    first, *_, last = answer["answer_slices"]
    assert last == first + 2 and len(answer["answer_slices"]) == 3
    odds = torch.tensor([readings[n - 1]["tumour_probability"] for n in range(first, last + 1)])
    assert answer["tumour_probability"] == pytest.approx(float(odds.logit().mean().sigmoid()))
    parts = read_slices(mapping_system, read_volume(volume), 7)
    assert answer["answer"] == describe_answer({n: r for part in parts for n, r in part.items()})
    assert f"(by slices {first}, {first + 1} and {last})" in answer["answer"]


def test_a_picture_is_a_volume_of_one_slice(mapping_system: MedFedPure) -> None:
    scan = draw_phantom(1, True)
    answer = read_whole(mapping_system, decode_upload(to_png(scan)), False, 0)
    alone = mapping_system.read(scan)
    assert answer["slices"] == answer["read"] == 1 and answer["answer_slices"] == [1]
    assert answer["tumour_probability"] == pytest.approx(alone.tumour_probability, abs=1e-6)
    assert answer["kind"] == "picture"


def test_where_no_slice_can_be_judged_there_is_no_answer(
    mapping_system: MedFedPure, volume: bytes
) -> None:
    system = copy.deepcopy(mapping_system)
    system.novelty.cut.fill_(-1e9)
    answer = read_whole(system, decode_upload(volume), False, 0)
    assert answer["tumour_probability"] is None and answer["answer_slices"] == []
    assert answer["answer"].startswith("No slice can be judged")
    assert answer["read"] == answer["cannot_judge"] == 8
    assert not any(reading["can_judge"] for reading in answer["readings"][1:-1])
    check_schema(answer, list_keys(VOLUME_DESCRIPTION))


def test_refusals_are_sentences(tiny_system: MedFedPure, volume: bytes, photograph: bytes) -> None:
    for words, call in {
        "Send one file": (None, False, 0),
        "empty": (decode_upload(b""), True, 0),
        "brain MRI": (decode_upload(photograph), False, 0),
    }.items():
        with pytest.raises(ScanError, match=words):
            read_whole(tiny_system, *call)
    with pytest.raises(ValueError, match="seed"):
        read_whole(tiny_system, decode_upload(volume), False, -1)
    assert read_whole(tiny_system, decode_upload(photograph), True, 0)["read"] == 1


def test_the_chosen_hospital_reads_and_the_file_is_deleted(
    tiny_system: MedFedPure, volume: bytes, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    write(copy.deepcopy(tiny_system), tmp_path / "weights")
    systems = load_all(tmp_path / "weights", "cpu")
    api = make_api(systems, "")

    def call(hospital: int) -> dict[str, Any]:
        file = tmp_path / "a" / "scan.nii"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(volume)
        try:
            return api.read_volume({"path": str(file)}, False, 0, hospital)
        finally:
            assert not file.exists()

    for number in range(1, COUNT + 1):
        expected = read_whole(systems[number], decode_upload(volume), False, 0)
        assert call(number) == expected
    assert call(0) == call(1) != call(2)
    with pytest.raises(gr.Error, match="There is no hospital 9"):
        call(9)


def test_without_weights_the_problem_is_the_answer() -> None:
    api = make_api({}, "The weights are missing.")
    with pytest.raises(gr.Error, match="The weights are missing"):
        api.read_volume(None, False, 0)


def test_a_program_reads_a_volume(served: Served, volume: bytes, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    torch.manual_seed(0)
    local = build_system(small_config((112, 56, 28)), {"preset": "untrained"})
    (tmp_path / "Jane Doe.nii").write_bytes(volume)
    (tmp_path / "Jane Doe.png").write_bytes(b"no picture")
    client = Client(served.url, verbose=False, analytics_enabled=False)
    answer = client.predict(handle_file(tmp_path / "Jane Doe.nii"), api_name="/read_volume")
    expected = read_whole(local, decode_upload(volume), False, 0)
    assert answer["answer_slices"] == expected["answer_slices"]
    assert answer["tumour_probability"] == pytest.approx(expected["tumour_probability"], abs=1e-4)
    with pytest.raises(AppError, match="not a picture or a volume"):
        client.predict(handle_file(tmp_path / "Jane Doe.png"), api_name="/read_volume")
    client.close()
    assert served.kept() == [] and "Jane" not in served.log.read_text()
