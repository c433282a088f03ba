"""Public endpoint over HTTP, with the client of the README."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_maker
import nibabel
import numpy as np
import pytest
import torch

import app
from core.pipeline import MedFedPure
from core.pipeline import build as build_system
from core.scan import ScanError, read_volume, to_png
from demo.phantom import draw_phantom
from demo.serving.api import API_DESCRIPTION, Api, read_once
from demo.serving.uploads import decode_upload
from tests.demo.browser.browsing import Served, call_api
from tests.demo.serving.schema import check_schema, list_keys
from tests.small_system import small_config

# what docs/api.md shows, word for word
EXAMPLE = """
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
reading = client.predict(scan=handle_file("scan.png"), api_name="/read")
print(reading["can_judge"], reading["tumour_probability"], reading["flagged"])

for number in range(1, 4):  # of a DICOM series, a NIfTI volume or a zip
    reading = client.predict(handle_file("volume.nii.gz"), slice=number, api_name="/read")
    print(reading["slice"], "of", reading["slices"], reading["score"])

whole = client.predict(handle_file("volume.nii.gz"), api_name="/read_volume")
print(whole["tumour_probability"], "by slices", whole["answer_slices"], whole["answer"])
"""
NUMBERS = ("tumour_probability", "tumour_probability_undefended", "score", "attention")


def documented() -> dict[str, str]:
    """Return the schema in the endpoint's description: key to type."""
    return list_keys(API_DESCRIPTION)


@pytest.fixture(scope="module")
def volume() -> bytes:
    """Build a NIfTI file of three heads."""
    heads = [draw_phantom(n, n == 1)[0].numpy() * 800 for n in range(3)]
    image = nibabel.Nifti1Image(np.stack(heads, -1).astype(np.int16), np.eye(4))
    return bytes(image.to_bytes())


@pytest.fixture(scope="module")
def local_system() -> MedFedPure:
    """Build the system that `tests.demo.browser.serve` serves."""
    torch.manual_seed(0)
    return build_system(small_config((112, 56, 28)), {"preset": "untrained"})


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    from gradio_client import Client

    client = Client(served.url, verbose=False, analytics_enabled=False)
    yield client
    client.close()


def test_the_description_is_the_output(tiny_system: MedFedPure, volume: bytes) -> None:
    answer = read_once(tiny_system, decode_upload(volume), False, 0, with_map=True)
    check_schema(answer, documented())
    assert answer["where"] == ""  # its network makes no map
    assert answer["tumour_map"] == answer["expert_maps"] == []
    assert answer["tumour_area"] is None and answer["tumour_regions"] is None


def test_the_tumour_map_is_sent_on_request(mapping_system: MedFedPure, volume: bytes) -> None:
    cells = mapping_system.read(read_volume(volume).slice(1)).tumour_map
    assert cells is not None
    short = read_once(mapping_system, decode_upload(volume), False, 0)
    full = read_once(mapping_system, decode_upload(volume), False, 0, with_map=True)
    assert short["tumour_map"] == short["expert_maps"] == [] and short.keys() == full.keys()
    torch.testing.assert_close(torch.tensor(full["tumour_map"]), cells, atol=6e-4, rtol=0)
    mixed = torch.tensor(full["attention"]) @ torch.tensor(full["expert_maps"]).flatten(1)
    torch.testing.assert_close(mixed.view(56, 56), cells, atol=6e-4, rtol=0)
    assert full["where"].startswith("Nowhere above 50 %") == (full["tumour_regions"] == 0)
    assert ("% of the head" in full["where"]) == (full["tumour_area"] > 0)
    assert len(json.dumps(full["tumour_map"])) < 30_000


def test_a_slice_is_chosen_and_the_middle_one_is_read_otherwise(
    tiny_system: MedFedPure, volume: bytes
) -> None:
    for number in (1, 2, 3):
        answer = read_once(tiny_system, decode_upload(volume), False, 0, number)
        alone = tiny_system.read(read_volume(volume).slice(number - 1))
        assert answer["score"] == pytest.approx(alone.score, abs=1e-6)
        assert (answer["slice"], answer["slices"], answer["kind"]) == (number, 3, "NIfTI")
    middle = read_once(tiny_system, decode_upload(volume), False, 0)
    assert middle["slice"] == 2


def test_refusals_are_sentences(tiny_system: MedFedPure, volume: bytes, photograph: bytes) -> None:
    for words, call in {
        "Send one file": (None, False, 0),
        "empty": (decode_upload(b""), True, 0),
        "brain MRI": (decode_upload(photograph), False, 0),
        "no slice 4: the file has 3": (decode_upload(volume), False, 0, 4),
        "no slice -1": (decode_upload(volume), False, 0, -1),
    }.items():
        with pytest.raises(ScanError, match=words):
            read_once(tiny_system, *call)
    with pytest.raises(ValueError, match="seed"):
        read_once(tiny_system, decode_upload(volume), False, -1)
    assert read_once(tiny_system, decode_upload(photograph), True, 0)["kind"] == "picture"


def test_the_example_of_the_readme_runs(
    served: Served, local_system: MedFedPure, volume: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("scan.png").write_bytes(to_png(draw_phantom(1, True)))
    Path("volume.nii.gz").write_bytes(volume)  # its content says what it is, not its name
    exec(EXAMPLE.replace("http://127.0.0.1:7860", served.url), space := {})
    lines = capsys.readouterr().out.splitlines()
    alone = local_system.read(draw_phantom(1, True))
    printed = [line.split() for line in lines if line.startswith("True")]
    assert float(printed[0][1]) == pytest.approx(alone.tumour_probability, abs=1e-4)
    slices = [line.split() for line in lines if line[1:5] == " of "]
    assert [line[:3] for line in slices] == [[f"{n}", "of", "3"] for n in (1, 2, 3)]
    for number, line in enumerate(slices):
        score = local_system.read(read_volume(volume).slice(number)).score
        assert float(line[3]) == pytest.approx(score, rel=1e-3)
    assert "by slices [1, 2, 3] Answer for the volume, with defence: " in lines[-1]
    space["client"].close()


def test_every_kind_of_file_is_read_and_none_is_kept(
    served: Served, client: Any, local_system: MedFedPure, volume: bytes, tmp_path: Path
) -> None:
    from gradio_client import handle_file

    stored = (draw_phantom(4, False)[0].numpy() * 3000).astype(np.uint16)
    files = {
        "Jane Doe.png": to_png(draw_phantom(1, True)),
        "Jane Doe.dcm": dicom_maker.encode_native(dicom_maker.build_data_set(stored, 12), stored),
        "Jane Doe.nii": volume,
    }
    kinds = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        answer = client.predict(handle_file(tmp_path / name), seed=3, api_name="/read")
        alone = local_system.read(read_volume(data).slice(), 3)
        for number in NUMBERS:
            was = getattr(alone, number)
            expected = was.tolist() if isinstance(was, torch.Tensor) else was
            assert answer[number] == pytest.approx(expected, abs=1e-4, rel=1e-4)
        assert answer["seed"] == 3 and sorted(answer) == sorted(documented())
        kinds.append(answer["kind"])
    assert kinds == ["picture", "DICOM", "NIfTI"]
    assert served.kept() == [] and "Jane" not in served.log.read_text()


def test_a_call_may_leave_out_the_last_inputs(tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    png = to_png(draw_phantom(1, True))
    (tmp_path / "scan.png").write_bytes(png)
    server = Served(tmp_path, "--maps")
    try:
        full = call_api(server, png, False, 3, 0, True)
        short = call_api(server, png, False, 3, 0)  # the form of before there was `with_map`
        alone = call_api(server, png)
        client = Client(server.url, verbose=False, analytics_enabled=False)
        scan = handle_file(tmp_path / "scan.png")
        by_client = client.predict(scan, False, 3, 0, api_name="/read")
        client.close()
    finally:
        server.stop()
    assert [len(a["tumour_map"]) for a in (full, short, by_client, alone)] == [56, 0, 0, 0]
    assert [a["seed"] for a in (full, short, by_client, alone)] == [3, 3, 3, 0]
    assert short["where"] == by_client["where"] == full["where"] != ""
    assert short["score"] == by_client["score"] == full["score"]


def test_a_refusal_reaches_the_caller_and_nothing_else(
    served: Served, client: Any, tmp_path: Path
) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "Jane Doe.png").write_bytes(b"no picture")
    with pytest.raises(AppError, match="not a picture or a volume") as refused:
        client.predict(handle_file(tmp_path / "Jane Doe.png"), api_name="/read")
    assert str(served.folder) not in str(refused.value) and "Traceback" not in str(refused.value)
    assert served.kept() == [] and "Jane" not in served.log.read_text()


def test_the_endpoint_is_described_where_clients_look(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}/gradio_api/info", timeout=30) as reply:
        endpoints = json.load(reply)["named_endpoints"]
    common = {"scan": None, "any_picture": False, "seed": 0}
    expected = {"/read": common | {"slice": 0, "with_map": False, "d": 0}, "/read_volume": common}
    assert list(endpoints) == list(expected)
    for name, inputs in expected.items():
        found = endpoints[name]["parameters"]
        assert {p["parameter_name"]: p["parameter_default"] for p in found} == inputs
        assert "not for clinical use" in endpoints[name]["description"]


def test_the_tool_has_one_name_with_and_without_hospitals() -> None:
    """Gradio names an MCP tool after its function."""
    assert Api.read_alone.__name__ == Api.read.__name__ == "read"


def test_mcp_without_its_package_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "mcp" else find(name)
    )
    with pytest.raises(SystemExit) as left:
        app.parse_arguments(["--mcp"])
    assert left.value.code == 2
    assert capsys.readouterr().err.strip().endswith(app.MCP_MISSING)
    assert app.parse_arguments([]).mcp is False


def test_a_language_model_finds_the_tools_and_reads_with_them(
    tmp_path: Path, local_system: MedFedPure
) -> None:
    pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")
    import ast
    import base64

    import anyio
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    server = Served(tmp_path, "--mcp")
    png = base64.b64encode(to_png(draw_phantom(1, True))).decode()
    found: dict[str, Any] = {}

    async def talk() -> None:
        async with (
            streamable_http_client(f"{server.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            found["tools"] = (await session.list_tools()).tools
            question = {"scan": f"data:image/png;base64,{png}", "seed": 3}
            for name in ("read", "read_volume"):
                found[name] = await session.call_tool(name, question)

    try:
        anyio.run(talk)
        common = {"scan", "any_picture", "seed"}
        assert {tool.name: set(tool.inputSchema["properties"]) for tool in found["tools"]} == {
            "read": common | {"slice", "with_map", "d"}, "read_volume": common
        }  # fmt: skip
        assert all("not for clinical use" in tool.description for tool in found["tools"])
        answer, whole = (
            ast.literal_eval(found[name].content[0].text) for name in ("read", "read_volume")
        )
        assert whole["answer_slices"] == [1]
        assert whole["tumour_probability"] == pytest.approx(answer["tumour_probability"], abs=1e-6)
        alone = local_system.read(draw_phantom(1, True), 3)
        assert answer["score"] == pytest.approx(alone.score, rel=1e-3) and answer["seed"] == 3
        folder = server.folder
        assert len(server.kept()) <= 1  # Gradio's own copy of the data URL: left to the sweeper
    finally:
        server.stop()
    assert not folder.exists()
