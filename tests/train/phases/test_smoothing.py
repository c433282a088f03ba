"""The smoothed classifier's loss, its validation score, and its phase on forty phantoms."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from core.smoothing import Smoothed, SmoothedConfig
from demo.phantom import draw_phantom
from train.data.augment import AugmentConfig
from train.data.dataset import Sample, ScanDataset
from train.phases.smoothing import SmoothedTrainConfig, build_loss, build_validation

UNCHANGED = AugmentConfig(**dict.fromkeys((f.name for f in fields(AugmentConfig)), 0))
TINY = SmoothedConfig(sigma=0.25, unet_channels=(8, 8), time_dim=8, channels=(8, 8, 8, 8), hidden=8)


class Brightness(Smoothed):
    """Classifier: tumour if the average is bright."""

    def forward(self, noised: Tensor) -> Tensor:
        margin = noised.flatten(1).sum(1) / self.inside.sum() - 0.5
        return torch.stack([-margin, margin], 1)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.stack([draw_phantom(i, tumour=i % 2 == 1) for i in range(8)])


def loss_of(model: nn.Module, x: Tensor, seed: int = 0, **config: float) -> Tensor:
    y = torch.arange(len(x)) % 2
    loss = build_loss(SmoothedTrainConfig(**config), UNCHANGED)
    return loss(model, Sample(x, y), torch.Generator().manual_seed(seed))


def test_the_loss_is_both_and_teaches_both_networks(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Smoothed(TINY)
    alone, both = loss_of(model, x, denoise=0), loss_of(model, x, denoise=1)
    fresh = model.inside.mean().item()  # a fresh U-Net predicts no noise: it errs by all of it
    assert (both - alone).item() == pytest.approx(fresh, abs=0.05)
    both.backward()
    for part in (model.noise_pred.out, model.expert.head[-1]):
        assert float(part.weight.grad.abs().max()) > 0
    assert torch.equal(loss_of(model, x), loss_of(model, x))
    assert not torch.equal(loss_of(model, x), loss_of(model, x, seed=1))


def test_moving_the_average_raises_the_loss_by_a_bounded_step(x: Tensor) -> None:
    torch.manual_seed(0)
    model, seen = Brightness(TINY), []
    steps = {adv: loss_of(model, x, denoise=0, adv=adv) for adv in (0.0, 0.4)}
    assert all(p.grad is None for p in model.parameters()), "the attack leaves no gradients behind"

    class Watching(Brightness):
        def predict_noise(self, noised: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(noised.detach())
            return super().predict_noise(noised)

    watching = Watching(TINY)
    for adv in (0.0, 0.4):
        loss_of(watching, x, adv=adv)
    moved = (seen[1] - seen[0]).flatten(1)
    norms = moved.norm(dim=1)
    assert bool(((norms >= 0.2 - 1e-5) & (norms <= 0.4 + 1e-5)).all()) and len(steps) == 2
    y = torch.arange(len(x)) % 2  # darker where the truth is 'tumour', brighter elsewhere
    assert torch.equal(moved.mean(1) < 0, y == 1)


def test_the_score_counts_scans_with_enough_correct_copies() -> None:
    levels = torch.tensor([0.3, 0.5, 0.51, 0.7])
    scans = (levels * 255).byte().view(-1, 1, 1).expand(-1, 224, 224).numpy()
    data = ScanDataset(scans, torch.tensor([0, 1, 1, 1]), ["a"] * 4, list(range(4)))
    cpu = torch.device("cpu")
    figures = build_validation(data, SmoothedTrainConfig(), cpu)(Brightness(TINY))
    assert figures["score"] == 0.5  # .51 is .28 away in L2, less than reach * .015
    assert 0.5 < figures["noised"] < 1
    near = build_validation(data, SmoothedTrainConfig(eps=0.005), cpu)(Brightness(TINY))
    assert near["score"] == 0.75
    with pytest.raises(TypeError, match="expected a Smoothed"):
        build_validation(data, SmoothedTrainConfig(), cpu)(nn.Linear(1, 1))


@pytest.mark.parametrize("wrong", [{"denoise": -1.0}, {"adv": -0.1}, {"eps": 0.0}])
def test_invalid_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        SmoothedTrainConfig(**wrong)
