"""Laws of the mixture under both gates, and its loss by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.backbone import RESNET18_CHANNELS
from core.moe import (
    GATES,
    MixtureOfExperts,
    MixtureOutput,
    MoEConfig,
    attention_entropy,
    is_personal,
    mixture_loss,
)

TINY = MoEConfig(
    img_size=32, sides=(32, 16, 8), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4
)


def build_mixture(seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    return MixtureOfExperts(TINY).eval()


def build_by_client(weights: list[float], sides: tuple[int, ...] = TINY.sides) -> MixtureOfExperts:
    """Build a mixture with fixed weights for all scans."""
    torch.manual_seed(0)
    model = MixtureOfExperts(replace(TINY, sides=sides, gate="client")).eval()
    model.attention.set_weights(torch.tensor(weights))
    return model


def build_with_attention() -> MixtureOfExperts:
    """Build a mixture whose attention depends on the scan."""
    model = build_mixture()
    for network in model.attention:
        nn.init.normal_(network[-1].weight, std=2)
    return model


def scans(count: int = 6) -> Tensor:
    """Draw scans, half finely textured, half smooth."""
    x = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    x[1::2] = F.interpolate(x[1::2, :, :4, :4], size=32, mode="bilinear")
    return x


@pytest.mark.parametrize("gate", GATES)
def test_fresh_attention_is_uniform(gate: str) -> None:
    model = MixtureOfExperts(replace(TINY, gate=gate)).eval()
    torch.testing.assert_close(model.outputs(scans()).attention, torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize("gate", GATES)
def test_one_expert_alone_is_the_mixture(gate: str) -> None:
    model, x = MixtureOfExperts(replace(TINY, sides=(16,), gate=gate)).eval(), scans()
    output = model.outputs(x)
    assert output.attention.tolist() == [[1.0]] * 6
    torch.testing.assert_close(output.logits, model.experts[0](x).log_softmax(1))


def test_a_client_s_weights_are_those_of_every_scan() -> None:
    pi, x = [0.7, 0.1, 0.2], scans()
    model = build_by_client(pi)
    output = model.outputs(x)
    mixed = sum(w * expert(x).softmax(1) for w, expert in zip(pi, model.experts, strict=True))
    torch.testing.assert_close(output.logits.exp(), mixed)
    torch.testing.assert_close(output.attention, torch.tensor([pi] * 6))
    assert output.expert_logits.shape == (6, 3, 2) and torch.equal(model(x), output.logits)


def test_a_client_s_weights_learn_under_the_paper_s_loss() -> None:
    model, x, y = build_by_client([0.7, 0.1, 0.2]), scans(), torch.tensor([0, 1] * 3)
    mixture_loss(model.outputs(x), y, model, beta=0.0, gamma=0.0).backward()
    assert model.attention.log_weights.grad.abs().max() > 0


def test_a_weight_of_zero_removes_an_expert_and_stays_finite() -> None:
    model, x = build_by_client([0.0, 1.0], (16, 8)), scans()
    torch.testing.assert_close(model(x), model.experts[1](x).log_softmax(1))
    assert model.attention.log_weights.isfinite().all()


@pytest.mark.parametrize(
    "weights", [[0.5, 0.5], [1.5, -0.5, 0.0], [0.2, 0.2, 0.2], [math.nan] * 3, [[1.0, 0.0, 0.0]]]
)
def test_what_is_no_weights_is_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="need 3 weights of at least 0 and of sum 1"):
        build_by_client(weights)


def test_attention_is_a_distribution_over_experts() -> None:
    attention = build_with_attention().outputs(scans()).attention
    assert attention.shape == (6, 3) and (attention >= 0).all()
    torch.testing.assert_close(attention.sum(1), torch.ones(6))


def test_attention_comes_to_vary_with_the_scan() -> None:
    model, x, y = build_mixture().train(), scans(8), torch.arange(8) % 2
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        optimiser.zero_grad()
        mixture_loss(model.outputs(x), y, model, beta=1e-4, gamma=0.0, expert=0.5).backward()
        optimiser.step()
    assert model.outputs(x).attention.std(0).max() > 1e-3


def test_logits_are_the_log_of_the_mixed_probabilities() -> None:
    """Eq. 5-6 average probabilities."""
    model, x = build_with_attention(), scans()
    output = model.outputs(x)
    mixed = sum(
        output.attention[:, k : k + 1] * output.expert_logits[:, k].softmax(1) for k in range(3)
    )
    torch.testing.assert_close(output.logits, mixed.log())
    torch.testing.assert_close(output.logits.exp().sum(1), torch.ones(6))
    assert torch.equal(model(x), output.logits)
    for k, expert in enumerate(model.experts):
        torch.testing.assert_close(output.expert_logits[:, k], expert(x))


def test_attention_is_eq_8_on_the_experts_features() -> None:
    model, x = build_with_attention(), scans()
    psi = torch.cat([expert.answer(x).features for expert in model.experts], dim=1)
    psi = (psi - psi.mean(1, keepdim=True)) / (psi.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    scores = torch.cat([network(psi) for network in model.attention], dim=1)
    expected = scores.exp() / scores.exp().sum(1, keepdim=True)
    torch.testing.assert_close(model.outputs(x).attention, expected, atol=1e-5, rtol=1e-4)


def test_a_certain_expert_does_not_overflow() -> None:
    model = build_with_attention()
    model.experts[0].head[-1].bias.data = torch.tensor([1e4, -1e4])
    logits = model(scans())
    assert logits.isfinite().all()


def test_the_loss_is_eq_9_and_10() -> None:
    model = build_mixture()
    for parameter in model.attention.parameters():
        nn.init.constant_(parameter, 0.1)
    squares = 0.01 * 3 * (24 * 4 + 4 + 4 + 1)  # per expert: 24 features to 4 units to 1
    attention = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    output = MixtureOutput(probabilities.log(), torch.zeros(2, 3, 2), attention)
    y = torch.tensor([0, 1])
    entropy = (1.5 * math.log(2) + 0) / 2
    plain = -(math.log(0.9) + math.log(0.6)) / 2

    def loss(**weights: float) -> float:
        return mixture_loss(output, y, model, **{"beta": 0.0, "gamma": 0.0} | weights).item()

    assert attention_entropy(attention).tolist() == pytest.approx([1.5 * math.log(2), 0])
    assert loss() == pytest.approx(plain)
    assert loss(beta=0.3) == pytest.approx(plain + 0.3 * squares, rel=1e-5)
    assert loss(gamma=0.7) == pytest.approx(plain + 0.7 * entropy)
    assert loss(expert=0.5) == pytest.approx(plain + 0.5 * math.log(2))


def test_the_experts_own_loss_pairs_each_scan_with_its_label() -> None:
    sure = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])  # class 0, then class 1
    output = MixtureOutput(
        torch.zeros(2, 2), sure[:, None].expand(-1, 3, -1), torch.full((2, 3), 1 / 3)
    )
    y = torch.tensor([0, 1])
    assert float(
        mixture_loss(output, y, build_mixture(), beta=0.0, gamma=0.0, expert=1.0)
    ) == pytest.approx(0)
    assert float(mixture_loss(output, 1 - y, build_mixture(), beta=0.0, gamma=0.0, expert=1.0)) > 30


def test_personal_is_the_attention_and_nothing_else() -> None:
    names = list(build_mixture().state_dict())
    personal = {name for name in names if is_personal(name)}
    assert personal == {name for name in names if name.startswith("attention.")}
    assert len(personal) == 3 * 4
    assert is_personal("classifier.model.attention.0.0.weight")
    assert not is_personal("experts.0.backbone.attention_pool.weight")
    by_name = build_by_client([0.7, 0.1, 0.2]).state_dict()
    assert [name for name in by_name if is_personal(name)] == ["attention.log_weights"]


def test_an_expert_sees_the_scan_averaged_to_its_side() -> None:
    expert = build_mixture().experts[1]  # side 16
    x = scans()
    coarse = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)
    torch.testing.assert_close(expert(x), expert(coarse))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"sides": (112, 50)}, r"must divide img_size 224, got \(112, 50\)"),
        ({"sides": ()}, "must divide img_size"),
        ({"sides": (0,)}, "must divide img_size"),
        ({"channels": (8, 8)}, "four stages"),
        ({"gate": "server"}, "gate must be one of input, client, got 'server'"),
        ({"backbone": "vgg"}, "backbone must be one of resnet18, mobilenetv2, got 'vgg'"),
        (
            {"backbone": "mobilenetv2"},
            r"of mobilenetv2 must be \(1280,\), got \(32, 64, 128, 256\)",
        ),
        ({"pretrained": True}, "full-width experts"),
        ({"pretrained": True, "channels": RESNET18_CHANNELS}, "full resolution"),
    ],
)
def test_bad_configs_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoEConfig(**bad)
