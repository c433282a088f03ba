"""Full pipeline on phantoms: a reading, its gradients, its policies, its folder of weights."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core import checkpoint, load
from core.backbone import RESNET18_CHANNELS
from core.checkpoint import WeightsError
from core.features import FEATURES
from core.mae import MAEConfig
from core.moe import MoEConfig
from core.pipeline import (
    Diagnosis,
    MedFedPure,
    PipelineConfig,
    build,
)
from core.purifier import POLICIES
from core.weights import (
    PARTS,
    SYSTEM,
    config_from_dict,
    config_to_dict,
    save_part,
    save_system_file,
)
from tests.small_system import small_config
from train.calibration.thresholds import store_thresholds

SPLIT = "0" * 64
NUMBERS = {
    "can_judge",
    "purifying_turns",
    "novelty",
    "novelty_limit",
    "scores",
    "contributions",
    "usual_score",
    "score",
    "score_name",
    "tau",
    "flagged",
    "confidence",
    "t_star",
    "attention",
    "expert_probabilities",
    "expert_shares",
    "operating_point",
    "overall_share",
    "tumour_probability",
    "tumour_probability_undefended",
    "tumour_probability_unpurified",
    "tumour_probability_purified",
    "policy",
    "stability_radius",
    "stable",
    "stable_radius",
    "flip_distance",
    "timings_ms",
    "seed",
}


def set_tau(system: MedFedPure, tau: float) -> MedFedPure:
    """Move the deciding threshold: a high one flags nothing, a low one everything."""
    system.detector.thresholds.fill_(tau)
    return system


def set_policy(system: MedFedPure, policy: str) -> MedFedPure:
    system.purifier.config = replace(system.purifier.config, policy=policy)
    return system


def get_numbers(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the results that must be equal in repeated readings."""
    return {k: v for k, v in diagnosis.to_dict().items() if k != "timings_ms"}


@pytest.mark.parametrize("tau", [-1e6, 1e6])
def test_a_reading_holds_every_intermediate(
    system: MedFedPure, phantoms: Tensor, tau: float
) -> None:
    d = set_policy(set_tau(system, tau), "floor").read(phantoms[1], seed=3)
    assert torch.equal(d.scan, phantoms[1])
    assert d.error_map.shape == (224, 224)
    assert tuple(d.evidence) == FEATURES and d.evidence["quiet"].shape == (14, 14)
    total = d.usual_score + sum(d.contributions.values())
    assert total == pytest.approx(d.scores["fused"], abs=1e-5)
    assert d.score == d.scores[d.score_name] and set(d.scores) == {"paper", "fused"}
    assert d.tau == tau and d.flagged is (tau < 0) and 0 <= d.confidence <= 1
    assert d.t_star == (system.config.purifier.t_max if d.flagged else 20) and d.seed == 3
    assert d.purified.shape == (1, 224, 224) and not torch.equal(d.purified, d.scan)
    experts = len(system.classifier.model.experts)
    assert d.attention.shape == d.expert_probabilities.shape == (experts,)
    assert d.attention.sum().item() == pytest.approx(1)
    torch.testing.assert_close(  # before calibration the mixture is the weighted mean
        torch.tensor(d.tumour_probability), (d.attention * d.expert_probabilities).sum()
    )
    assert d.is_tumour is (d.tumour_probability >= 0.5)
    log_odds = math.log(d.tumour_probability / (1 - d.tumour_probability))
    total = d.expert_shares.sum().item() + d.operating_point
    assert total == pytest.approx(log_odds, abs=1e-4)
    assert d.tumour_map is None and d.expert_maps is None
    assert d.overall_share == pytest.approx(d.expert_shares.sum().item())
    assert list(d.timings_ms) == ["detect", "purify", "classify", "stability", "total"]
    assert d.timings_ms["total"] == pytest.approx(sum(list(d.timings_ms.values())[:4]))
    assert set(json.loads(json.dumps(d.to_dict()))) == NUMBERS
    assert d.can_judge and not replace(d, novelty=d.novelty_limit + 1).can_judge
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.seed = 4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_reading_agrees_with_the_parts(system: MedFedPure, phantoms: Tensor, policy: str) -> None:
    d, x = set_policy(set_tau(system, -1e6), policy).read(phantoms[0], seed=5), phantoms[:1]
    for name, logits in (
        ("tumour_probability", system.logits(x, [5])),
        ("tumour_probability_unpurified", system.classifier_logits(x)),
        ("tumour_probability_purified", system.classifier_logits(d.purified[None])),
        ("tumour_probability_undefended", system.plain_logits(x)),
    ):
        assert getattr(d, name) == pytest.approx(logits.softmax(1)[0, 1].item(), abs=1e-6), name
    assert d.tumour_probability_undefended != d.tumour_probability_unpurified


def test_calibration_moves_the_operating_point(system: MedFedPure, phantoms: Tensor) -> None:
    before = system.read(phantoms[0])
    system.classifier.temperature.fill_(2.0)
    system.classifier.bias.copy_(torch.tensor([0.0, 1.5]))
    after = system.read(phantoms[0])
    log_odds = torch.logit(torch.tensor(before.tumour_probability)) / 2 + 1.5
    assert after.tumour_probability == pytest.approx(log_odds.sigmoid().item(), abs=1e-5)
    assert after.tumour_probability_undefended == before.tumour_probability_undefended


@pytest.mark.parametrize("tau", [-1e6, 1e6])
def test_a_scan_reads_alike_alone_and_in_a_batch(
    system: MedFedPure, phantoms: Tensor, tau: float
) -> None:
    set_tau(system, tau)
    seeds = [7, 8, 7, 9]
    together = system.read_batch(phantoms, seeds)
    for scan, seed, batched in zip(phantoms, seeds, together, strict=True):
        alone = system.read(scan, seed)
        assert alone.t_star == batched.t_star and alone.flagged == batched.flagged
        for field in dataclasses.fields(Diagnosis):
            a, b = getattr(alone, field.name), getattr(batched, field.name)
            if isinstance(a, Tensor | float) and field.name != "timings_ms":
                torch.testing.assert_close(
                    torch.as_tensor(a), torch.as_tensor(b), atol=1e-4, rtol=1e-5, msg=field.name
                )


def test_tomorrow_reads_as_today(system: MedFedPure, phantoms: Tensor) -> None:
    set_policy(system, "floor")
    torch.manual_seed(1)
    today = system.read(phantoms[1], seed=4)
    torch.manual_seed(2)
    tomorrow, another = system.read(phantoms[1], seed=4), system.read(phantoms[1], seed=5)
    assert get_numbers(today) == get_numbers(tomorrow)
    assert torch.equal(today.purified, tomorrow.purified)
    assert not torch.equal(today.purified, another.purified)


def test_reading_records_no_gradients(system: MedFedPure, phantoms: Tensor) -> None:
    scan = phantoms[0].clone().requires_grad_()
    d = system.read(scan)
    tensors = [v for v in vars(d).values() if isinstance(v, Tensor)]
    assert tensors and not any(v.requires_grad for v in tensors)
    assert scan.grad is None and torch.is_grad_enabled() and not system.training


@pytest.mark.parametrize("tau", [-1e6, 1e6])
def test_gradients_through_the_defence_are_the_true_ones(
    system: MedFedPure, phantoms: Tensor, tau: float
) -> None:
    """Gradients equal finite differences at the most sensitive pixels at a fixed depth."""
    set_policy(set_tau(system, tau), "floor")
    x, y = 0.3 + 0.4 * phantoms[:1], torch.tensor([1])  # clear of clipping

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(system.logits(x, [3] * len(x)), y.expand(len(x)), reduction="none")

    x = x.requires_grad_()
    (grad,) = torch.autograd.grad(loss(x).sum(), x)
    assert (grad != 0).float().mean() > 0.5
    pixels, h = grad.abs().flatten().topk(4).indices, 0.02
    nudges = torch.zeros(4, grad.numel()).scatter(1, pixels[:, None], h).view(4, *x.shape[1:])
    with torch.no_grad():
        slopes = (loss(x + nudges) - loss(x - nudges)) / (2 * h)
        along = 1e-3 * grad / grad.abs().max()
        rise = (loss(x + along) - loss(x - along)) / 2
    torch.testing.assert_close(slopes, grad.flatten()[pixels], rtol=0.1, atol=1e-5)
    torch.testing.assert_close(rise[0], (grad * along).sum(), rtol=0.1, atol=1e-7)


def test_parameters_gather_no_gradient(system: MedFedPure, phantoms: Tensor) -> None:
    x = phantoms[:1].clone().requires_grad_()
    system.logits(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in system.parameters())


def test_a_picture_is_no_part_of_the_answer(system: MedFedPure, phantoms: Tensor) -> None:
    """By default the scan itself is read, and purified to be looked at, whatever its score."""
    clean, flagged = (set_tau(system, tau).read(phantoms[0]) for tau in (1e6, -1e6))
    assert flagged.flagged and not clean.flagged
    assert clean.policy == "picture" and clean.t_star == system.config.purifier.t_picture
    assert clean.scan_read is clean.scan and not clean.purifying_turns
    assert not torch.equal(clean.purified, clean.scan)
    assert clean.tumour_probability_purified != clean.tumour_probability
    for name in ("tumour_probability", "purified", "attention"):
        assert torch.equal(*(torch.as_tensor(getattr(d, name)) for d in (clean, flagged)))


def test_an_answer_of_the_scan_itself_is_attacked_without_the_purifier(
    system: MedFedPure, phantoms: Tensor
) -> None:
    set_tau(system, -1e6)
    assert torch.equal(system.logits(phantoms, [1] * 4), system.classifier_logits(phantoms))


def test_the_paper_purifies_flagged_scans_only(system: MedFedPure, phantoms: Tensor) -> None:
    set_policy(system, "paper")
    clean, attacked = (set_tau(system, tau).read(phantoms[0]) for tau in (1e6, -1e6))
    assert clean.t_star == 0 and torch.equal(clean.purified, clean.scan)
    assert clean.tumour_probability == pytest.approx(clean.tumour_probability_unpurified, abs=1e-6)
    assert attacked.t_star == system.config.purifier.t_max


def test_the_floor_purifies_every_scan(system: MedFedPure, phantoms: Tensor) -> None:
    set_policy(system, "floor")
    clean, attacked = (set_tau(system, tau).read(phantoms[0]) for tau in (1e6, -1e6))
    assert clean.t_star == system.config.purifier.t_floor < attacked.t_star
    assert not torch.equal(clean.purified, clean.scan)


def test_the_papers_score_can_decide(tiny_system: MedFedPure, phantoms: Tensor) -> None:
    config = tiny_system.config
    system = build(replace(config, detector=replace(config.detector, score="paper")))
    d = system.read(phantoms[0])
    assert d.score_name == "paper" and d.score == d.scores["paper"]


@pytest.mark.parametrize(
    "bad",
    [
        torch.rand(224, 224),
        torch.rand(3, 224, 224),
        torch.rand(1, 112, 112),
        torch.rand(1, 1, 224, 224),
        torch.full((1, 224, 224), float("nan")),
        torch.full((1, 224, 224), float("inf")),
        torch.full((1, 224, 224), 1.01),
        torch.full((1, 224, 224), -0.01),
        torch.full((1, 224, 224), 200, dtype=torch.uint8),
        torch.rand(0),
    ],
    ids=lambda x: f"{x.dtype}{tuple(x.shape)}",
)
def test_what_is_no_scan_is_refused(tiny_system: MedFedPure, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="scans"):
        tiny_system.read(bad)


def test_a_double_scan_reads_as_its_float(tiny_system: MedFedPure, phantoms: Tensor) -> None:
    double = tiny_system.read(phantoms[0].double())
    assert get_numbers(double) == get_numbers(tiny_system.read(phantoms[0]))


def test_an_empty_batch_and_missing_seeds_are_named(
    tiny_system: MedFedPure, phantoms: Tensor
) -> None:
    with pytest.raises(ValueError, match="at least one"):
        tiny_system.read_batch(phantoms[:0], [])
    with pytest.raises(ValueError, match="one seed"):
        tiny_system.read_batch(phantoms[:2], [0])


def test_parts_of_different_sizes_do_not_fit() -> None:
    with pytest.raises(ValueError, match="share one img_size"):
        PipelineConfig(mae=MAEConfig(img_size=112))


def test_a_configuration_survives_json(tiny_system: MedFedPure) -> None:
    values = json.loads(json.dumps(config_to_dict(tiny_system.config)))
    assert config_from_dict(values) == tiny_system.config


def test_a_configuration_from_before_gates_and_backbones_still_loads(
    tiny_system: MedFedPure,
) -> None:
    values = json.loads(json.dumps(config_to_dict(tiny_system.config)))
    for part in ("moe", "plain"):
        del values[part]["gate"], values[part]["backbone"]
    assert config_from_dict(values) == tiny_system.config
    assert "attention.0.0.weight" in tiny_system.classifier.model.state_dict()


def save(system: MedFedPure, folder: Path, split: str = SPLIT) -> Path:
    for name, place in PARTS.items():
        save_part(system.get_submodule(place), folder, name, {}, split)
    save_system_file(system, folder, SPLIT)
    names = [*PARTS, SYSTEM]
    checkpoint.write_manifest(folder, names, preset="tiny", protocol="none", commit="none")
    return folder


def test_a_saved_system_reads_as_it_did(
    system: MedFedPure, phantoms: Tensor, tmp_path: Path
) -> None:
    store_thresholds(system.detector, "fused", torch.randn(50), torch.randn(50) + 4)
    system.classifier.temperature.fill_(1.7)
    for place in PARTS.values():  # what half precision keeps
        part = system.get_submodule(place)
        part.load_state_dict({k: v.half().to(v.dtype) for k, v in part.state_dict().items()})
    again = load(save(system, tmp_path))
    assert again.config == system.config and not again.training
    assert again.info == {"preset": "tiny", "split_sha256": SPLIT}
    before, after = system.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert get_numbers(again.read(phantoms[1])) == get_numbers(system.read(phantoms[1]))


@pytest.mark.parametrize("name", [*PARTS, SYSTEM])
def test_one_flipped_byte_or_a_missing_part_is_refused(
    tiny_system: MedFedPure, tmp_path: Path, name: str
) -> None:
    file = save(tiny_system, tmp_path) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=f"{name} is not the one that was published"):
        load(tmp_path)
    file.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"{name} is incomplete"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        load(tmp_path)


def test_parts_of_another_split_are_refused(tiny_system: MedFedPure, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="trained on another split"):
        load(save(tiny_system, tmp_path, split="1" * 64))


def test_parts_of_another_shape_are_refused(tiny_system: MedFedPure, tmp_path: Path) -> None:
    save(tiny_system, tmp_path)
    wider = replace(tiny_system.config, plain=replace(tiny_system.config.plain, hidden=16))
    save_system_file(build(wider), tmp_path, SPLIT)
    checkpoint.write_manifest(
        tmp_path, [*PARTS, SYSTEM], preset="tiny", protocol="none", commit="none"
    )
    with pytest.raises(WeightsError, match="do not fit this version"):
        load(tmp_path)


def test_loading_fetches_no_imagenet_weights(tiny_system: MedFedPure, tmp_path: Path) -> None:
    """A system trained from ImageNet weights stores its own; tests have no network."""
    full = MoEConfig(sides=(224,), channels=RESNET18_CHANNELS)
    system = build(replace(tiny_system.config, moe=full))
    system.config = replace(system.config, moe=replace(full, pretrained=True))
    assert not load(save(system, tmp_path)).config.moe.pretrained


def test_readings_hold_tumour_maps_where_the_experts_make_them() -> None:
    plain = small_config()
    system = build(replace(plain, moe=replace(plain.moe, map_width=8)))
    x = torch.rand(2, 1, 224, 224)
    readings = system.read_batch(x, [0, 1])
    for i, d in enumerate(readings):
        assert d.expert_maps is not None and d.tumour_map is not None
        assert d.expert_maps.shape == (2, 56, 56)
        by_hand = (d.attention[:, None, None] * d.expert_maps).sum(0)
        torch.testing.assert_close(d.tumour_map, by_hand)
        with torch.no_grad():
            found = system.classifier.model.outputs(d.scan_read[None]).maps[1]
        torch.testing.assert_close(d.expert_maps[1], found.probability[0], atol=1e-5, rtol=1e-4)
        assert "tumour_map" not in d.to_dict() and d.seed == i


def test_an_answer_is_stable_where_no_flip_lies_within_the_radius(
    system: MedFedPure, phantoms: Tensor
) -> None:
    d, flips = system.read(phantoms[0]), system.find_flips(phantoms[:1])
    assert flips is not None and d.can_judge
    agree = d.is_tumour == (d.tumour_probability_unpurified >= 0.5)
    radius = float(flips.radius) if agree else 0.0
    assert d.stable_radius == pytest.approx(radius)
    assert d.stable is (radius >= d.stability_radius - 1e-6)
    assert (d.flip_distance is None) == (d.flipped is None) == math.isinf(float(flips.distance))


def test_an_answer_near_the_border_would_flip(system: MedFedPure, phantoms: Tensor) -> None:
    odds = system.classifier_logits(phantoms[:1]).diff(dim=1).item()
    system.classifier.bias[1] -= odds - 1e-5  # so that 'tumour' wins by next to nothing
    d = set_policy(set_tau(system, 1e6), "paper").read(phantoms[0])
    assert d.stable is False and d.stable_radius == 0
    assert d.flipped is not None and d.flip_distance is not None
    assert 0 < d.flip_distance <= 0.004
    assert (d.flipped - d.scan).abs().max().item() == pytest.approx(d.flip_distance, abs=1e-6)
    assert system.classifier_logits(d.flipped[None]).argmax(1).item() != int(d.is_tumour)


def test_an_answer_that_purifying_turns_is_not_stable(system: MedFedPure, phantoms: Tensor) -> None:
    d = system.read(phantoms[0])
    other = system._try_stability(phantoms[:1], torch.tensor([True]), torch.tensor([False]))[0]
    assert other["stable"] is False and other["stable_radius"] == 0
    assert other["flip_distance"] == d.flip_distance


def test_no_stability_is_claimed_of_what_cannot_be_judged(
    system: MedFedPure, phantoms: Tensor
) -> None:
    system.novelty.offset.fill_(1.0)  # above the limit, 0
    d = system.read(phantoms[0])
    assert not d.can_judge
    assert d.stable is d.stable_radius is d.flip_distance is d.flipped is None


def test_of_a_batch_only_what_can_be_judged_is_tried(system: MedFedPure, phantoms: Tensor) -> None:
    novelty = system.measure_novelty(phantoms)
    judged, agree = torch.tensor([False, True, False, True]), torch.ones(4, dtype=torch.bool)
    assert novelty.shape == judged.shape
    fields = system._try_stability(phantoms, judged, agree)
    assert [field["stable"] is None for field in fields] == [True, False, True, False]
    for i in (1, 3):
        alone = system._try_stability(phantoms[i : i + 1], judged[i : i + 1], agree[:1])[0]
        assert alone["stable_radius"] == fields[i]["stable_radius"]
        assert (alone["flip_distance"] is None) == (fields[i]["flip_distance"] is None)


def test_a_machine_too_slow_answers_without_stability(system: MedFedPure, phantoms: Tensor) -> None:
    before = system.read(phantoms[0])
    stability = replace(system.config.stability, seconds=1e-9)
    system.config = replace(system.config, stability=stability)
    d = system.read(phantoms[0])
    assert d.stable is None and d.can_judge
    assert d.tumour_probability == before.tumour_probability


def test_the_radius_can_be_chosen(system: MedFedPure, phantoms: Tensor) -> None:
    assert system.with_options(d=0.02).read(phantoms[0]).stability_radius == 0.02
    assert system.config.stability.d == 0.0075
    for d in (0.0, -0.001, 0.11):
        with pytest.raises(ValueError, match="d must be above 0"):
            system.with_options(d=d)


def test_weights_of_earlier_versions_know_no_stability(tiny_system: MedFedPure) -> None:
    values = config_to_dict(tiny_system.config)
    del values["stability"]
    assert config_from_dict(values) == tiny_system.config
