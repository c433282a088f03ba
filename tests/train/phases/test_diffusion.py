"""Training of the diffusion model: its target with and without attacks."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from core.diffusion import Diffusion, to_model
from train.data.augment import AugmentConfig
from train.data.dataset import Sample, ScanDataset
from train.phases.diffusion import DiffusionConfig, build_loss, build_validation

UNCHANGED = AugmentConfig(**dict.fromkeys((f.name for f in fields(AugmentConfig)), 0))
EPS = 0.02


class Oracle(nn.Module):
    """Noise predictor that knows the clean scan: predicts the whole difference from x_t."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean, self.diffusion = clean, Diffusion()
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.seen.append(t)
        clean = to_model(self.clean).expand_as(x_t)
        return self.diffusion.implied_noise(x_t, t, clean)


class Silent(nn.Module):
    """Noise predictor that predicts zero."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x_t)


def brightness(x: Tensor) -> Tensor:
    """Return logits whose attack brightens (label 0) or darkens (label 1) every pixel."""
    mean = x.flatten(1).mean(1) * 100
    return torch.stack([-mean, mean], 1)


def loss_of(model: nn.Module, x: Tensor, **config: float) -> float:
    loss = build_loss(
        DiffusionConfig(t_max=20, adv_eps=EPS, **config), UNCHANGED, Diffusion(), [brightness]
    )
    y = torch.zeros(len(x), dtype=torch.long)
    return float(loss(model, Sample(x, y), torch.Generator().manual_seed(0)))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)).expand(
        64, -1, -1, -1
    )


def test_without_attacks_it_is_the_papers_loss(x: Tensor) -> None:
    assert loss_of(Silent(), x) == pytest.approx(1, abs=0.05)  # E ||noise||^2
    assert loss_of(Oracle(x[:1]), x) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_noise_and_perturbation_are_removed_together(x: Tensor, share: float) -> None:
    """Predicting the difference of the noised attacked scan from the clean one has no loss."""
    oracle = Oracle(x[:1])
    assert loss_of(oracle, x, adv_share=share) == pytest.approx(0, abs=1e-4)
    # and who predicts nothing is off by the perturbation too, so there was one
    excess = loss_of(Silent(), x, adv_share=share) - loss_of(Silent(), x)
    a = Diffusion().alpha_bar[torch.cat(oracle.seen)]
    largest = float((a / (1 - a)).mean()) * (2 * EPS) ** 2 * share
    assert 0.05 * largest < excess < 1.5 * largest


def test_validation_scans_are_attacked_only_with_attacks_in_training(x: Tensor) -> None:
    scans = (x[:8, 0] * 255).round().to(torch.uint8).numpy()
    data = ScanDataset(scans, torch.zeros(8, dtype=torch.long), ["a"] * 8, range(8))

    def errors(share: float) -> dict[str, float]:
        config = DiffusionConfig(t_max=20, adv_eps=EPS, adv_share=share)
        return build_validation(data, Diffusion(), config, torch.device("cpu"), [brightness])(
            Silent()
        )

    calm, hit = errors(0.0), errors(0.5)
    assert set(calm) == {"t1", "t4", "t8", "t16", "score"}
    assert hit["t1"] > calm["t1"] * 1.05


@pytest.mark.parametrize(
    "bad", [{"t_max": 0}, {"adv_share": 1.5}, {"adv_eps": 0}, {"adv_steps": 0}]
)
def test_numbers_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DiffusionConfig(**bad)
