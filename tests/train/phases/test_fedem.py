"""FedEM: laws of E-step and M-step; only the E-step changes a client's weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.moe import MixtureOfExperts, MoEConfig
from train.data.augment import AugmentConfig
from train.data.dataset import Sample, ScanDataset
from train.phases import classifier
from train.phases.classifier import ClassifierConfig, build_loss
from train.phases.fedem import compute_responsibilities, em_loss, estimate_mixture_weights
from train.trainer import OPTIMIZERS, FitConfig, fit

CPU = torch.device("cpu")
PI = torch.tensor([0.7, 0.1, 0.2])
CONFIG = MoEConfig(img_size=16, sides=(16, 16, 16), channels=(4, 4, 4, 4), hidden=4, gate="client")
EM = ClassifierConfig(objective="em", beta=0.0, gamma=0.0, expert_loss=0.0)


def mixture(sides: int = 3, weights: Tensor | None = PI) -> MixtureOfExperts:
    torch.manual_seed(0)
    model = MixtureOfExperts(replace(CONFIG, sides=(16,) * sides)).eval()
    if weights is not None:
        model.attention.set_weights(weights)
    return model


def scans(count: int = 12) -> ScanDataset:
    """Draw different scans: bright ones of label 1 and dark ones of label 0."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    levels = rng.integers(0, 100, (count, 16, 16)) + 120 * labels[:, None, None]
    cells = [str(label) for label in labels]
    return ScanDataset(levels.astype(np.uint8), torch.from_numpy(labels), cells, range(count))


def set_prediction(model: MixtureOfExperts, expert: int, label: int, logit: float = 4.0) -> None:
    """Make an expert predict `label` for every scan."""
    model.experts[expert].head[-1].weight.data.zero_()
    model.experts[expert].head[-1].bias.data = logit * F.one_hot(torch.tensor(label), 2).float()


def test_identical_experts_share_scans_by_the_clients_weights() -> None:
    model, (x, y) = mixture(), scans().all(CPU)
    for expert in model.experts:
        expert.load_state_dict(model.experts[0].state_dict())
    torch.testing.assert_close(compute_responsibilities(model.outputs(x), y), PI.expand(12, 3))
    torch.testing.assert_close(estimate_mixture_weights(model, scans(), CPU), PI)


def test_responsibilities_are_the_posterior_of_the_expert() -> None:
    model, (x, y) = mixture(), scans().all(CPU)
    set_prediction(model, 1, 0)
    output = model.outputs(x)
    likelihood = output.expert_logits.softmax(2)[torch.arange(12), :, y]
    bayes = PI * likelihood / (PI * likelihood).sum(1, keepdim=True)
    torch.testing.assert_close(compute_responsibilities(output, y), bayes)


def test_one_expert_s_loss_is_cross_entropy() -> None:
    model, (x, y) = mixture(1, None), scans().all(CPU)
    output = model.outputs(x)
    assert compute_responsibilities(output, y).tolist() == [[1.0]] * 12
    torch.testing.assert_close(em_loss(output, y), F.cross_entropy(model.experts[0](x), y))


def test_an_experts_gradient_is_that_of_its_own_weighted_loss() -> None:
    model, (x, y) = mixture(), scans().all(CPU)
    q = compute_responsibilities(model.outputs(x), y).detach()
    em_loss(model.outputs(x), y).backward()
    assert model.attention.log_weights.grad is None
    for k, expert in enumerate(model.experts):
        own = (q[:, k] * F.cross_entropy(expert(x), y, reduction="none")).mean()
        (grad,) = torch.autograd.grad(own, expert.head[-1].weight)
        torch.testing.assert_close(expert.head[-1].weight.grad, grad)


def test_em_never_lowers_the_likelihood() -> None:
    """With fixed experts, repeated E-steps never lower the likelihood."""
    model, data = mixture(), scans()
    set_prediction(model, 0, 0)
    x, y = data.all(CPU)
    losses = []
    for _ in range(6):
        with torch.no_grad():
            losses.append(float(F.nll_loss(model(x), y)))
        model.attention.set_weights(estimate_mixture_weights(model, data, CPU))
    assert all(after <= before + 1e-6 for before, after in pairwise(losses))
    assert losses[-1] < losses[0] - 0.01


def test_the_better_expert_gets_the_weight() -> None:
    model, data = mixture(2, None), scans()
    ones = data.pick(range(1, 12, 2))
    set_prediction(model, 0, 0, 9.0)
    set_prediction(model, 1, 1, 9.0)
    assert estimate_mixture_weights(model, ones, CPU)[1] > 0.99
    assert estimate_mixture_weights(model, data.pick([0, 1]), CPU).tolist() == pytest.approx(
        [0.5, 0.5]
    )


def test_the_e_step_is_the_same_in_any_batches_and_leaves_the_model_alone() -> None:
    model, data = mixture().train(), scans()
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    whole = estimate_mixture_weights(model, data, CPU)
    torch.testing.assert_close(whole, estimate_mixture_weights(model, data, CPU, batch_size=5))
    assert whole.sum() == pytest.approx(1) and (whole > 0).all() and not whole.requires_grad
    assert all(module.training for module in model.modules())
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close(whole, estimate_mixture_weights(model.eval(), data, CPU))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_teaches_the_experts_and_moves_no_weight(optimizer: str) -> None:
    """Neither weight decay nor EMA changes the weights, and attacks leave no gradient there."""
    model, data = mixture(weights=torch.tensor([0.7, 0.3, 0.0])), scans()
    gate = model.attention.log_weights.detach().clone()
    old = model.experts[0].head[-1].weight.detach().clone()
    config = FitConfig(epochs=3, batch_size=8, lr=1e-2, weight_decay=0.5, ema=0.9,
                       optimizer=optimizer)  # fmt: skip
    history = fit(
        model, data, build_loss(EM, AugmentConfig()), config,
        validate=classifier.build_validation(data, CPU, 0.0), report=lambda _: None, device=CPU,
    )  # fmt: skip
    assert len(history) == 3
    assert torch.equal(model.attention.log_weights, gate)
    assert not torch.equal(model.experts[0].head[-1].weight, old)


def test_under_eq_9_the_weights_do_learn() -> None:
    model, data = mixture(), scans()
    gate = model.attention.log_weights.detach().clone()
    loss = build_loss(ClassifierConfig(), AugmentConfig())
    fit(
        model, data, loss, FitConfig(epochs=1, batch_size=8, lr=1e-2),
        validate=lambda _: {"score": 0.0}, report=lambda _: None, device=CPU,
    )  # fmt: skip
    assert not torch.equal(model.attention.log_weights, gate)


def test_em_wants_a_gate_of_the_client() -> None:
    model = MixtureOfExperts(replace(CONFIG, gate="input"))
    sample = Sample(*scans().all(CPU))
    with pytest.raises(ValueError, match="objective 'em' needs gate 'client', got 'input'"):
        build_loss(EM, AugmentConfig())(model, sample, torch.Generator())


def test_no_scans_weigh_nothing() -> None:
    with pytest.raises(ValueError, match="no scans"):
        estimate_mixture_weights(mixture(), scans().pick([]), CPU)


@pytest.mark.parametrize("term", ["beta", "gamma", "expert_loss"])
def test_em_has_none_of_the_papers_terms(term: str) -> None:
    with pytest.raises(ValueError, match="must be 0 with objective 'em'"):
        replace(EM, **{term: 0.5})


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(ValueError, match="one of mixture, em, got 'vote'"):
        ClassifierConfig(objective="vote")
