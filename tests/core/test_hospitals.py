"""Systems of several hospitals: shared parts, hospitals' own parts, and refusals."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core import checkpoint, load
from core.__main__ import main
from core.checkpoint import WeightsError
from core.diagnosis import Diagnosis
from core.memoize import once, shared_computation
from core.moe import is_personal
from core.pipeline import MedFedPure, build
from core.scan import to_png
from core.weights import PARTS, Systems, load_all, save_part, save_system_file, system_file_name
from tests.hospitals import COUNT, SPLIT, write
from train.federated.hospital_weights import save_hospital, save_shared

NUMBERS = list(range(1, COUNT + 1))


@pytest.fixture(scope="module")
def written(
    tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[int, MedFedPure]]:
    folder = tmp_path_factory.mktemp("hospitals")
    return folder, write(copy.deepcopy(tiny_system), folder)


@pytest.fixture
def folder(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """Copy the weights, so that a test can damage them."""
    return Path(shutil.copytree(written[0], tmp_path / "weights"))


@pytest.fixture
def systems(written: tuple[Path, Any]) -> Systems:
    return load_all(written[0], "cpu")


def get_numbers(diagnosis: Diagnosis) -> dict[str, Any]:
    return {k: v for k, v in diagnosis.to_dict().items() if k != "timings_ms"}


def list_in_manifest(folder: Path) -> None:
    names = [path.name for path in folder.glob("*.safetensors")]
    checkpoint.write_manifest(folder, names, preset="tiny", protocol="none", commit="none")


def test_each_hospital_answers_as_from_its_file_alone(
    written: tuple[Path, dict[int, MedFedPure]], systems: Systems, phantoms: Tensor
) -> None:
    folder, before = written
    answers = []
    assert list(systems) == NUMBERS
    for number, system in systems.items():
        alone = load(folder, "cpu", hospital=number)
        assert alone.info == system.info and system.info["hospital"] == number
        assert system.info["hospitals"] == NUMBERS and system.info["split_sha256"] == SPLIT
        state, own = system.state_dict(), before[number].state_dict()
        for name, tensor in alone.state_dict().items():
            assert torch.equal(state[name], tensor) and torch.equal(own[name], tensor), name
        answers.append(get_numbers(system.read(phantoms[1], seed=3)))
        assert answers[-1] == get_numbers(alone.read(phantoms[1], seed=3))
    for one, other in itertools.combinations(answers, 2):
        assert one["attention"] != other["attention"]
        assert one["tumour_probability"] != other["tumour_probability"]
    assert [answer["flagged"] for answer in answers] == [True, False, True]
    assert load(folder, "cpu").info["hospital"] == 1


def test_the_weights_say_which_hospital_reads_by_default(folder: Path) -> None:
    checkpoint.write_default(folder, 3)
    assert load(folder, "cpu").info["hospital"] == 3
    systems = load_all(folder, "cpu")
    assert list(systems) == [3, 1, 2]
    assert all(system.info["hospital"] == number for number, system in systems.items())
    lines = checkpoint.read_manifest(folder)
    names = [system_file_name(2)]
    checkpoint.write_manifest(folder, names, preset="", protocol="", commit="", keep=True)
    assert checkpoint.read_default(folder) == 3
    assert checkpoint.read_manifest(folder).keys() == lines.keys()
    with pytest.raises(WeightsError, match="no hospital 9: these weights have hospitals 1, 2, 3"):
        load(folder, hospital=9)
    (folder / system_file_name(3)).unlink()  # it was withdrawn
    listed = [path.name for path in folder.glob("*.safetensors")]
    checkpoint.write_manifest(folder, listed, preset="tiny", protocol="none", commit="none")
    checkpoint.write_default(folder, 3)
    assert load(folder, "cpu").info["hospital"] == 1


def test_what_is_shared_is_in_memory_once_and_nothing_personal_is(systems: Systems) -> None:
    first, *others = systems.values()
    for other in others:
        mine, its = first.state_dict(keep_vars=True), other.state_dict(keep_vars=True)
        shared = {name for name in mine if mine[name].data_ptr() == its[name].data_ptr()}
        assert shared == {
            name
            for name in mine
            if name.startswith(tuple(PARTS.values())) and not is_personal(name)
        }
        assert other.detector._measurements.trained is other.classifier


def test_shared_files_hold_nothing_personal(written: tuple[Path, Any]) -> None:
    shared = {name: checkpoint.load(written[0] / name).state_dict for name in PARTS}
    assert not any(is_personal(n) for state in shared.values() for n in state)
    own = checkpoint.load(written[0] / system_file_name(2)).state_dict
    assert {n.split(".")[0] for n in own} == {"classifier", "plain", "detector"}
    assert all(is_personal(n) for n in own if n.startswith("classifier.model."))
    places = {f"{PARTS[name]}.{n}" for name, state in shared.items() for n in state}
    assert not places & set(own) and len(places) + len(own) == len(load(written[0]).state_dict())


def test_a_reading_leaves_the_other_hospitals_as_they_were(
    systems: Systems, phantoms: Tensor
) -> None:
    """This holds while all hospitals read, each in several threads."""
    alone = {n: get_numbers(system.read(phantoms[0], seed=n)) for n, system in systems.items()}
    before = {n: copy.deepcopy(system.state_dict()) for n, system in systems.items()}
    with ThreadPoolExecutor(6) as pool:
        asked = [(n, pool.submit(s.read, phantoms[0], n)) for n, s in [*systems.items()] * 4]
        assert all(get_numbers(answer.result()) == alone[n] for n, answer in asked)
    systems[2].classifier.bias.fill_(3)
    systems[2].detector.thresholds.fill_(-1e6)
    systems[2].classifier.model.attention[0][0].weight.zero_()
    for n in (1, 3):
        after = systems[n].state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before[n].items())
        assert get_numbers(systems[n].read(phantoms[0], seed=n)) == alone[n]
    assert get_numbers(systems[2].read(phantoms[0], seed=2)) != alone[2]


def test_normalisation_can_stay_local_too(
    tiny_system: MedFedPure, phantoms: Tensor, tmp_path: Path
) -> None:
    model = copy.deepcopy(tiny_system)
    at_home = {
        f"{place}.{name}"
        for place, module in model.classifier.model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name in module.state_dict()
    }
    before = write(model, tmp_path, lambda name: is_personal(name) or name in at_home)
    assert not at_home & set(checkpoint.load(tmp_path / "classifier.safetensors").state_dict)
    systems = load_all(tmp_path, "cpu")
    for number, system in systems.items():
        assert get_numbers(system.read(phantoms[0])) == get_numbers(
            before[number].read(phantoms[0])
        )
    convs = [system.classifier.model.experts[0].backbone.layer1[0] for system in systems.values()]
    assert convs[0].conv1 is convs[1].conv1 and convs[0].bn1 is not convs[1].bn1


def test_all_hospitals_read_once_what_they_share(systems: Systems, phantoms: Tensor) -> None:
    alone = [get_numbers(system.read(phantoms[1], seed=2)) for system in systems.values()]
    with torch.no_grad(), shared_computation():
        assert [get_numbers(s.read(phantoms[1], seed=2)) for s in systems.values()] == alone
        # another scan, another seed
        other = [get_numbers(s.read(phantoms[0], seed=4)) for s in systems.values()]
    assert other == [get_numbers(s.read(phantoms[0], seed=4)) for s in systems.values()]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @once
    def twice(self, x: Tensor, *more: Tensor) -> Tensor:
        self.count += 1
        return 2 * x + sum(more)

    @once
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x + 1


@torch.no_grad()
def test_once_is_for_the_same_module_method_and_numbers_only() -> None:
    one, other, x = Counting(), Counting(), torch.arange(3.0)
    one.twice(x), one.twice(x)
    assert one.count == 2  # as ever, outside
    with shared_computation():
        assert torch.equal(one.twice(x), 2 * x) and torch.equal(one.twice(x.clone()), 2 * x)
        assert one.count == 3
        assert torch.equal(other.twice(x), 2 * x) and torch.equal(one(x), x + 1)
        assert torch.equal(one.twice(x + 1), 2 * x + 2) and torch.equal(one.twice(x, x), 3 * x)
        assert torch.equal(one.twice(x[:2]), 2 * x[:2])
        assert (one.count, other.count) == (7, 1)
        with ThreadPoolExecutor(1) as pool:  # a thread beside it computes for itself
            pool.submit(torch.no_grad()(one.twice), x).result()
        assert one.count == 8
        with torch.enable_grad():
            (grad,) = torch.autograd.grad(one.twice(x.requires_grad_()).sum(), x)
        assert torch.equal(grad, torch.full((3,), 2.0))
    one.twice(x.detach())
    assert one.count == 10  # nothing is kept


def test_a_hospital_that_is_not_there_is_refused(written: tuple[Path, Any]) -> None:
    for number in (0, 4, -1):
        with pytest.raises(WeightsError, match=f"no hospital {number}: .* hospitals 1, 2, 3"):
            load(written[0], hospital=number)


@pytest.fixture
def pooled(tiny_system: MedFedPure, tmp_path: Path) -> Path:
    for name, place in PARTS.items():
        save_part(tiny_system.get_submodule(place), tmp_path, name, {}, SPLIT)
    save_system_file(tiny_system, tmp_path, SPLIT)
    names = [*PARTS, system_file_name(None)]
    checkpoint.write_manifest(tmp_path, names, preset="t", protocol="t", commit="c")
    return tmp_path


def test_pooled_weights_know_of_no_hospital(pooled: Path) -> None:
    systems = load_all(pooled)
    assert list(systems) == [None]
    assert not {"hospital", "hospitals"} & set(systems[None].info)
    with pytest.raises(WeightsError, match="no hospital 1: these weights have no hospitals"):
        load(pooled, hospital=1)


def test_what_ships_was_trained_by_ten_hospitals() -> None:
    systems = load_all()
    assert sorted(systems) == list(range(1, 11))
    first, last = systems[1].classifier.model, systems[10].classifier.model
    for (name, a), b in zip(first.named_parameters(), last.parameters(), strict=True):
        assert torch.equal(a, b) != is_personal(name), name


def test_no_measurement_decides_what_ships_alone() -> None:
    """No feature's share in the shipped fit is above one half; no weight is negative."""
    for number, system in load_all().items():
        share = system.info["validation"]["fused_largest_share"]
        assert 0 < share <= 0.5, number
        assert bool((system.detector.weight >= 0).all()), number
        assert int((system.detector.weight > 0).sum()) >= 3, number


def test_a_withdrawn_hospital_leaves_the_others(folder: Path, phantoms: Tensor) -> None:
    third = get_numbers(load(folder, hospital=3).read(phantoms[0]))
    (folder / system_file_name(1)).unlink()
    list_in_manifest(folder)
    systems = load_all(folder, "cpu")
    assert list(systems) == [2, 3] and get_numbers(systems[3].read(phantoms[0])) == third
    assert load(folder).info["hospital"] == 2


@pytest.mark.parametrize("number", NUMBERS)
def test_a_damaged_or_missing_file_is_named(folder: Path, number: int) -> None:
    file = folder / system_file_name(number)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    for broken, words in ((data, "is not the one that was published"), (data[:-1], "incomplete")):
        file.write_bytes(broken)
        for read in (lambda: load(folder, hospital=number), lambda: load_all(folder)):
            with pytest.raises(WeightsError, match=f"{file.name} .*{words}"):
                read()
    file.unlink()
    with pytest.raises(WeightsError, match=f"{file.name} is missing"):
        load_all(folder)


def test_another_hospital_s_file_is_refused(folder: Path) -> None:
    shutil.copy(folder / system_file_name(2), folder / system_file_name(3))
    list_in_manifest(folder)
    for read in (lambda: load(folder, hospital=3), lambda: load_all(folder)):
        with pytest.raises(
            WeightsError, match=r"hospital-03\.safetensors belongs to another hospital"
        ):
            read()


def test_a_file_of_another_split_or_shape_is_refused(folder: Path, tiny_system: MedFedPure) -> None:
    system = load(folder, hospital=2)
    save_hospital(system, folder, 2, "another split")
    list_in_manifest(folder)
    with pytest.raises(WeightsError, match="trained on another split than hospital-02"):
        load(folder, hospital=2)
    with pytest.raises(
        WeightsError, match=r"hospital-02\.safetensors is of another split or configuration"
    ):
        load_all(folder)
    moe = replace(tiny_system.config.moe, attention_hidden=8)
    (elsewhere := folder / "wide").mkdir()
    write(build(replace(tiny_system.config, moe=moe)), elsewhere)
    shutil.copy(elsewhere / system_file_name(2), folder)
    list_in_manifest(folder)
    with pytest.raises(
        WeightsError, match=r"hospital-02\.safetensors is of another split or configuration"
    ):
        load_all(folder)


def test_a_file_that_lacks_or_repeats_a_tensor_is_refused(folder: Path) -> None:
    file = folder / system_file_name(2)
    ties = checkpoint.load(file)
    lacking = {n: t for n, t in ties.state_dict.items() if n != "detector.clean_mean"}
    checkpoint.save(file, lacking, ties.config, split_sha256=SPLIT)
    list_in_manifest(folder)
    with pytest.raises(WeightsError, match=r"hospital-02\.safetensors .*do not fit") as refused:
        load(folder, hospital=2)
    assert "Missing key" in str(refused.value) and "detector.clean_mean" in str(refused.value)
    with pytest.raises(
        WeightsError, match=r"hospital-02\.safetensors is of another split or configuration"
    ):
        load_all(folder)
    system = load(folder, hospital=1)  # the attention in the classifier's file, as if pooled
    save_part(system.classifier.model, folder, "classifier.safetensors", {}, SPLIT)
    list_in_manifest(folder)
    with pytest.raises(WeightsError, match=r"hospital-01\.safetensors holds .*attention"):
        load(folder)


def test_the_writer_refuses_what_would_read_otherwise(
    tiny_system: MedFedPure, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        save_hospital(tiny_system, tmp_path, 1, SPLIT)
    save_shared(tiny_system, tmp_path, SPLIT)
    for number in (0, 100):
        with pytest.raises(ValueError, match=rf"in \[1, 99\], got {number}"):
            save_hospital(tiny_system, tmp_path, number, SPLIT)
    other = copy.deepcopy(tiny_system)
    other.classifier.model.experts[1].head[1].bias.add_(1)
    with pytest.raises(ValueError, match=r"experts\.1\.head\.1\.bias of hospital 2 is not the one"):
        save_hospital(other, tmp_path, 2, SPLIT)
    assert not (tmp_path / system_file_name(2)).exists()


def test_the_command_line_reads_as_the_hospital_named(
    written: tuple[Path, Any],
    phantoms: Tensor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "scan.png").write_bytes(to_png(phantoms[0]))
    scan = [str(tmp_path / "scan.png"), "--json", "--weights", str(written[0])]
    for options, number in (([], 1), (["--hospital", "1"], 1), (["--hospital", "3"], 3)):
        assert main([*scan, *options]) == 0
        line = json.loads(capsys.readouterr().out)
        alone = load(written[0], hospital=number).read(phantoms[0])
        assert line["attention"] == pytest.approx(alone.attention.tolist(), abs=1e-6)
        assert line["tau"] == alone.tau
    assert main([*scan, "--hospital", "9"]) == 2
    assert capsys.readouterr().err == (
        "There is no hospital 9: these weights have hospitals 1, 2, 3.\n"
    )


def test_a_hospital_may_have_chosen_its_own_radius_or_none_yet(folder: Path) -> None:
    """A file of an earlier version has neither it nor the picture's depth: both load."""
    for number, stability in ((2, None), (3, {"d": 0.011})):
        name = system_file_name(number)
        stored = checkpoint.load(folder / name)
        config = {**stored.config, "system": dict(stored.config["system"])}
        del config["system"]["stability"]
        if stability is None:
            purifier = {**config["system"]["purifier"], "policy": "floor"}
            del purifier["t_picture"]
            config["system"]["purifier"] = purifier
        else:
            config["system"]["stability"] = stability
        checkpoint.save(folder / name, stored.state_dict, config, split_sha256=stored.split_sha256)
    listed = [path.name for path in folder.glob("*.safetensors")]
    checkpoint.write_manifest(folder, listed, preset="tiny", protocol="none", commit="none")
    systems = load_all(folder, "cpu")
    radii = {n: system.config.stability.d for n, system in systems.items()}
    assert radii == {1: 0.0075, 2: 0.0075, 3: 0.011}
    assert {system.purifier.config.policy for system in systems.values()} == {"picture"}
    assert load(folder, "cpu", hospital=2, policy=None).purifier.config.policy == "floor"
    assert load(folder, "cpu", hospital=3).config.stability.d == 0.011
