"""Costs counted by hand, and that all parts of a reading are in them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.federation.methods import Cost, count_cost
from core.moe import MixtureOfExperts, MoEConfig
from core.pipeline import MedFedPure


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )
    multiply_adds = 16 * 8 * 3 * 9 + 16 * 8 * 9 + 8 * 16 * 10
    parameters = (8 * 3 * 9 + 8) + 8 * 9 + (8 * 16 * 10 + 10)
    x = torch.rand(1, 3, 8, 8)
    assert count_cost(net, lambda: net(x)) == Cost(parameters, multiply_adds)
    assert count_cost(net, lambda: net(x.repeat(5, 1, 1, 1))).multiply_adds == 5 * multiply_adds


def test_attention_is_counted() -> None:
    q = torch.rand(1, 2, 7, 4)  # two heads, seven tokens, four numbers each
    products = count_cost(nn.Identity(), lambda: F.scaled_dot_product_attention(q, q, q))
    assert products == Cost(0, 2 * (2 * 7 * 7 * 4))


@pytest.mark.parametrize(
    ("kind", "gate", "biases"), [("input", 2 * (8 * 5 + 5), 2 * (5 + 1)), ("client", 0, 2)]
)
def test_a_mixture_costs_its_experts_and_its_gate(kind: str, gate: int, biases: int) -> None:
    config = MoEConfig(
        img_size=16, sides=(16, 8), channels=(4, 4, 4, 4), hidden=6, attention_hidden=5, gate=kind
    )
    model, x = MixtureOfExperts(config).eval(), torch.rand(1, 1, 16, 16)
    experts = [count_cost(expert, lambda e=expert: e(x)) for expert in model.experts]
    assert count_cost(model, lambda: model(x)) == Cost(
        sum(c.parameters for c in experts) + gate + biases,
        sum(c.multiply_adds for c in experts) + gate,
    )
    assert experts[0].multiply_adds > 3 * experts[1].multiply_adds


def test_a_reading_costs_all_that_the_system_does(tiny_system: MedFedPure) -> None:
    scan = torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(0))
    x = scan[None]
    t_star = tiny_system.t_star(tiny_system.score(tiny_system.detect(x)))
    assert t_star.item() > 0
    parts: list[Tensor] = []

    def of(call) -> int:
        return count_cost(tiny_system, call).multiply_adds

    whole = count_cost(tiny_system, lambda: parts.append(tiny_system.read(scan).purified))
    assert whole.multiply_adds == (
        of(lambda: tiny_system.detector.locate(tiny_system.detect(x).parts))
        + of(lambda: tiny_system.measure_novelty(x))
        + of(lambda: tiny_system.purify(x, t_star))
        # of the scan and of the purified one
        + 2 * of(lambda: tiny_system.classifier_logits(x))
        + of(lambda: tiny_system.find_flips(x))
    )
    assert len(parts) == 1  # read once
    assert whole.parameters == sum(
        sum(p.numel() for p in part.parameters())
        for part in (
            tiny_system.classifier, tiny_system.plain, tiny_system.detector.mae,
            tiny_system.detector.residual_net, tiny_system.purifier, tiny_system.novelty,
        )
    )  # fmt: skip
