"""Certificates by randomized smoothing (Cohen et al. 2019) with a diffusion model as denoiser.

The method of (Certified!!) (Carlini et al. 2023) on a scan averaged to 28 x 28. Averaging is
1-Lipschitz in L-inf, so a perturbation of L-inf eps on the scan moves the n averaged pixels by at
most sqrt(n) * eps in L2, the norm in which Gaussian noise certifies. Pixels outside the head are
not read, because each one enlarges that bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import WEIGHTS, WeightsError
from core.diffusion import Diffusion, to_model, to_pixels
from core.moe import Expert, MoEConfig
from core.seeds import derive_seed
from core.unet import UNet, UNetConfig

FILE = "smoothed.safetensors"
BATCH_SIZE = 250  # noisy copies in one forward pass
BISECTION_STEPS = 60  # of [0, 1] in search of a bound: to 1e-18


@dataclass(frozen=True)
class SmoothedConfig:
    """Shapes; `sigma` is the noise's standard deviation at `side` pixels, which are [0, 1].

    Pixels outside an `ellipse` in the middle, its axes in parts of the side, are not read.
    """

    img_size: int = 224
    side: int = 28
    sigma: float = 0.25
    ellipse: tuple[float, float] = (0.9, 0.79)
    unshuffle: int = 2
    unet_channels: tuple[int, ...] = (32, 64)
    time_dim: int = 64
    channels: tuple[int, ...] = (32, 64, 128, 128)
    hidden: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        cells = self.unshuffle * 2 ** (len(self.unet_channels) - 1)
        if not 0 < self.sigma <= 2:
            raise ValueError(f"sigma must be in (0, 2], got {self.sigma}")
        if min(self.ellipse) < 0.1 or len(self.ellipse) != 2:
            raise ValueError(f"ellipse must be height and width of .1 or more, got {self.ellipse}")
        if self.side < 1 or self.side % cells or self.img_size % self.side:
            raise ValueError(f"side must be a multiple of {cells} and divide img_size, got {self}")
        if any(c % 8 for c in self.channels):
            raise ValueError(f"channels must be multiples of 8, got {self.channels}")


class Certificate(NamedTuple):
    """Certified answer: no perturbation of L2 norm `radius` (L-inf `eps` on the scan) changes it.

    It holds with probability 1 - alpha over the noise; `label` is None where nothing is certified.
    """

    label: int | None
    radius: float
    eps: float
    agreed: int  # of n noisy copies, those classified as `label`


class Smoothed(nn.Module):
    """g(x) = argmax_c P(f(pool(x) + sigma noise) = c); f denoises in one step, then classifies."""

    inside: Tensor  # (side, side), 1 where the average is read, else 0

    def __init__(self, config: SmoothedConfig) -> None:
        super().__init__()
        self.config = c = config
        self.diffusion = Diffusion()
        self.register_buffer("inside", _build_ellipse(c.side, *c.ellipse), persistent=False)
        a = self.diffusion.alpha_bar
        self.t = int(((1 - a) / a).sqrt().sub(2 * c.sigma).abs().argmin())
        self.noise_pred = UNet(UNetConfig(1, c.unshuffle, c.unet_channels, c.time_dim))
        fold, side = c.unshuffle, c.side // c.unshuffle
        shape = MoEConfig(side, fold**2, 2, (side,), c.channels, c.hidden, dropout=c.dropout)
        self.expert = _replace_batch_norm(Expert(shape, side))

    def pool(self, x: Tensor) -> Tensor:
        """Average scans (B, 1, H, W) in [0, 1] to (B, 1, side, side): 1-Lipschitz in L-inf.

        Outside the ellipse it is 0.
        """
        return self.inside * F.avg_pool2d(x, x.shape[-1] // self.config.side)

    @property
    def reach(self) -> float:
        """Largest L2 change of the average per unit of L-inf on the scan: sqrt(pixels read)."""
        return math.sqrt(float(self.inside.sum()))

    def add_noise(self, average: Tensor, noise: Tensor) -> Tensor:
        """Add sigma times standard normal noise to averages (B, 1, side, side), where read."""
        return average + self.config.sigma * self.inside * noise

    def predict_noise(self, noised: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted noise and the denoised averages, both (B, 1, side, side)."""
        t = torch.full((len(noised),), self.t, device=noised.device)
        x_t = self.diffusion.alpha_bar[self.t].sqrt() * to_model(noised)
        noise: Tensor = self.noise_pred(x_t, t)
        return noise, to_pixels(self.diffusion.predict_x0(x_t, t, noise))

    def classify(self, average: Tensor) -> Tensor:
        """Return logits (B, 2) of denoised averages, unshuffled into channels as in the U-Net."""
        logits: Tensor = self.expert(F.pixel_unshuffle(average, self.config.unshuffle))
        return logits

    def forward(self, noised: Tensor) -> Tensor:
        """Return the base classifier f's logits (B, 2) of noised averages (B, 1, side, side)."""
        return self.classify(self.predict_noise(noised)[1])

    @torch.no_grad()
    def count_votes(self, average: Tensor, n: int, seed: int) -> Tensor:
        """Count f's votes by class, (2,) int64, over n noisy copies of an average (1, s, s)."""
        generator = torch.Generator().manual_seed(seed)
        found = torch.zeros(2, dtype=torch.int64)
        for start in range(0, n, BATCH_SIZE):
            noise = torch.randn(min(BATCH_SIZE, n - start), *average.shape, generator=generator)
            logits = self(self.add_noise(average, noise.to(average)))
            if not torch.isfinite(logits).all():
                raise ValueError("the smoothed classifier returned NaN or infinity")
            found += logits.argmax(1).bincount(minlength=2).cpu()
        return found

    def certify(
        self, scan: Tensor, *, n0: int = 100, n: int = 1000, alpha: float = 0.001, seed: int = 0
    ) -> Certificate:
        """Certify one scan (1, H, W) in [0, 1]: CERTIFY of Cohen et al. (2019).

        n0 noisy copies select the class; n others, of another noise stream, bound its probability.

        Raises:
            ValueError: n0 or n is below 1, alpha not in (0, 1), the scan is of another shape or
                has values outside [0, 1], or the output is not finite.
        """
        side = self.config.img_size
        if tuple(scan.shape) != (1, side, side) or not bool(((scan >= 0) & (scan <= 1)).all()):
            shape = (1, side, side)
            raise ValueError(f"expected a scan {shape} in [0, 1], got {tuple(scan.shape)}")
        if min(n0, n) < 1 or not 0 < alpha < 1:
            raise ValueError(f"need n0 and n of 1 or more, alpha in (0, 1), got {n0}, {n}, {alpha}")
        self.eval()
        average = self.pool(scan[None].to(next(self.parameters())))[0]
        label = int(self.count_votes(average, n0, derive_seed(seed, "selection")).argmax())
        agreed = int(self.count_votes(average, n, derive_seed(seed, "estimation"))[label])
        least = lower_bound(agreed, n, alpha)
        if least <= 0.5:
            return Certificate(None, 0.0, 0.0, agreed)
        radius = self.config.sigma * NormalDist().inv_cdf(least)
        return Certificate(label, radius, radius / self.reach, agreed)


def lower_bound(k: int, n: int, alpha: float) -> float:
    """Return the Clopper-Pearson (1934) lower bound of a share, from k successes in n trials.

    One-sided, with confidence 1 - alpha: the p at which k or more of n happen with probability
    alpha, by bisection from below.

    Raises:
        ValueError: k is not in [0, n].
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must be in [0, {n}], got {k}")
    i = torch.arange(k, n + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)
    low, high = 0.0, 1.0
    for _ in range(BISECTION_STEPS if k else 0):
        p = (low + high) / 2
        if p in (low, high):
            break
        tail = (ways + i * math.log(p) + (n - i) * math.log1p(-p)).logsumexp(0).exp()
        low, high = (p, high) if tail <= alpha else (low, p)
    return low


def load(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Smoothed:
    """Load and verify the smoothed classifier of a folder of weights (default: published).

    Raises:
        WeightsError: the weights have none, or its file is missing, damaged or of another version.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    if FILE not in checkpoint.read_manifest(folder):
        raise WeightsError(
            f"These weights have no smoothed classifier, so no scan can be certified: "
            f"{folder} does not list {FILE}."
        )
    part = checkpoint.load_verified(FILE, folder)
    try:
        stored = part.config.items()
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored}
        model = Smoothed(SmoothedConfig(**values))
        model.load_state_dict(part.state_dict)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{FILE} in {folder} does not fit this version: {error}") from None
    return model.to(device).eval().requires_grad_(False)


def _build_ellipse(side: int, height: float, width: float) -> Tensor:
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    return ((at[:, None] / height) ** 2 + (at / width) ** 2 <= 1).float()


def _replace_batch_norm(module: nn.Module) -> nn.Module:
    """Replace batch norm by group norm: certificates must not depend on a hospital."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(8, child.num_features))
        else:
            _replace_batch_norm(child)
    return module
