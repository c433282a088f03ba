"""Features of the fused detector: measurements of a scan that attacks tend to raise.

Sources: whitened residuals and the quietest patches (robust statistics of noise), the diffusion
model's own noise estimate at small t (after Zhang et al. 2023, EPS-AD), and a matched filter: an
attack that follows a classifier's gradient leaves that gradient's signs in the scan, and the
classifier's gradient at the attacked scan gives the signs to look for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.diffusion import Diffusion, to_model
from core.mae import patch_mean
from core.steganalysis import ResidualNet, blur, high_pass

FEATURES = (
    "residual_mean",  # whitened fine-band energy of the MAE's residual, mean over patches
    "residual_top",  # whitened fine-band energy, mean of the highest fifth of the patches
    "quiet",  # fine-band energy of the quietest fifth of the patches, log
    "noise_estimate",  # noise that the diffusion model predicts in the scan itself, log
    "noise_quiet",  # predicted noise, mean of the lowest fifth of the patches, log
    "plain_match",  # how well the fine band matches the signs of the plain classifier's gradient
    "trained_match",  # match with the signs of the trained mixture's gradient
    "residual_net",  # log-odds of the network in steganalysis.py
)
NOISE_T = 8
MIN_ENERGY = 1e-7  # energies below a hundredth of an 8-bit level squared are taken as equal


class Parts(NamedTuple):
    """Values that the measurements of B scans are made of, and both classifiers' answers."""

    white: Tensor  # (B, L) whitened fine-band energy of the residual, of each patch
    fine: Tensor  # (B, L) fine-band energy
    noise: Tensor  # (B, L) energy of the noise that the diffusion model predicts
    plain: Tensor  # (B, C, H, W) of `multiply_with_gradient`, plain classifier
    trained: Tensor  # the same, trained mixture
    maps: Tensor  # (B, D, h, w) last maps of the steganalysis network
    plain_logits: Tensor  # (B, classes) of the plain classifier, without gradient
    trained_logits: Tensor  # the same of the trained mixture


class Measurements:
    """Measurements FEATURES, made with the system's networks; without parameters of its own."""

    def __init__(
        self,
        noise_pred: nn.Module,
        diffusion: Diffusion,
        trained: Callable[[Tensor], Tensor],
        plain: Callable[[Tensor], Tensor],
        residual_net: ResidualNet,
    ) -> None:
        self.noise_pred = noise_pred
        self.diffusion = diffusion
        self.trained = trained
        self.plain = plain
        self.residual_net = residual_net

    def __call__(
        self, x: Tensor, residual: Tensor, clean_mean: Tensor, clean_std: Tensor, patch_size: int
    ) -> tuple[Tensor, Parts]:
        """Return (B, F) of scans and residuals (B, C, H, W), clean mean and std (H / p, W / p)."""
        white = ((log_band_energy(residual, patch_size) - clean_mean) / clean_std).flatten(1)
        fine = patch_mean(high_pass(x).square(), patch_size).flatten(1)
        noise = self._estimate_noise(x, patch_size)
        plain, plain_logits = multiply_with_gradient(x, self.plain)
        trained, trained_logits = multiply_with_gradient(x, self.trained)
        maps = self.residual_net.maps(x)
        columns = [
            white.mean(1),
            _average_extreme_fifth(white, largest=True),
            (_average_extreme_fifth(fine, largest=False) + MIN_ENERGY).log(),
            (noise.mean(1) + MIN_ENERGY).log(),
            (_average_extreme_fifth(noise, largest=False) + MIN_ENERGY).log(),
            correlate(plain).log1p(),
            correlate(trained).log1p(),
            self.residual_net.judge(maps),
        ]
        parts = Parts(white, fine, noise, plain, trained, maps, plain_logits, trained_logits)
        return torch.stack(columns, dim=1), parts

    def locate(self, parts: Parts, centre: Tensor, spread: Tensor, patch_size: int) -> Tensor:
        """Return how many standard deviations each patch is above usual, (B, F, H / p, W / p).

        Usual is, of the residual, the same patch of clean scans; of energies and of the network,
        the measurement of clean scans (its `centre` and `spread`); of a match, chance. Where a
        measurement leaves out all but the quietest patches, the others are 0.
        """
        side = parts.plain.shape[-1] // patch_size
        fine, noise = ((e + MIN_ENERGY).log() for e in (parts.fine, parts.noise))
        places = self.residual_net.judge_places(parts.maps)[:, None]
        columns = [
            parts.white,
            parts.white,
            torch.where(_is_lowest_fifth(fine), (fine - centre[2]) / spread[2], 0),
            (noise - centre[3]) / spread[3],
            torch.where(_is_lowest_fifth(noise), (noise - centre[4]) / spread[4], 0),
            _correlate_patches(parts.plain, patch_size),
            _correlate_patches(parts.trained, patch_size),
            (F.interpolate(places, (side, side), mode="area").flatten(1) - centre[7]) / spread[7],
        ]
        return torch.stack(columns, dim=1).view(len(places), -1, side, side)

    def _estimate_noise(self, x: Tensor, patch_size: int) -> Tensor:
        """Return the energy (B, L) of the noise that the diffusion model predicts in each patch."""
        t = torch.full((len(x),), NOISE_T, device=x.device)
        as_is = self.diffusion.q_sample(to_model(x), t, torch.zeros_like(x))
        return patch_mean(self.noise_pred(as_is, t).square(), patch_size).flatten(1)


def multiply_with_gradient(
    x: Tensor, classify: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Multiply scans (B, C, H, W) with the signs of the gradient of `classify`, pixel by pixel.

    Returns the products and the logits (B, classes), which the gradient needs anyway. The factors
    are the fine bands of the scan and of the signs of the log-odds' gradient, and one over the
    scan's local energy, which whitens both. The signs are constants for differentiation, as they
    are almost everywhere.
    """
    exact = torch.autocast(x.device.type, enabled=False)  # signs of small numbers: no rounding
    with torch.inference_mode(mode=False), torch.enable_grad(), exact:
        z = x.detach().clone().requires_grad_()
        # a copy: PyTorch's counter of operations cannot stand a leaf among a module's inputs
        logits = classify(z.clone())
        signs = torch.autograd.grad(log_odds(logits).sum(), z)[0].sign()
    band = high_pass(x)
    # what is finer than a level of 8 bits is rounding
    return band * high_pass(signs) / (blur(band.square()) + 1 / 255**2), logits.detach()


def correlate(product: Tensor) -> Tensor:
    """Return the sum of products (B, C, H, W) over its own spread as in a t-test, (B,) >= 0."""
    return product.sum((1, 2, 3)).abs() / product.square().sum((1, 2, 3)).clamp_min(1e-12).sqrt()


def log_band_energy(residual: Tensor, patch_size: int) -> Tensor:
    """Return the logarithm of the fine-band energy of each patch, (B, H / p, W / p)."""
    return (patch_mean(high_pass(residual).square(), patch_size) + MIN_ENERGY).log()


def log_odds(logits: Tensor) -> Tensor:
    """Return log-odds (B,) from (B, C): of class 1 of two, else of the most likely class."""
    log_probs = logits.log_softmax(1)
    if logits.shape[1] == 2:
        return log_probs[:, 1] - log_probs[:, 0]
    top, first = log_probs.max(1)
    return top - log_probs.scatter(1, first[:, None], -torch.inf).logsumexp(1)


def _average_extreme_fifth(patches: Tensor, *, largest: bool) -> Tensor:
    """Return the mean of the highest or lowest fifth of (B, L), (B,)."""
    k = max(1, patches.shape[1] // 5)
    return patches.topk(k, dim=1, largest=largest).values.mean(1)


def _is_lowest_fifth(patches: Tensor) -> Tensor:
    """Return True for the lowest fifth of (B, L), and for those that equal its highest."""
    return patches <= patches.kthvalue(max(1, patches.shape[1] // 5), dim=1, keepdim=True).values


def _correlate_patches(product: Tensor, patch_size: int) -> Tensor:
    """Return `correlate` of each patch (B, L), negative where it is against the whole scan's."""
    tiles = product.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    t = tiles.sum((1, 4, 5)) / tiles.square().sum((1, 4, 5)).clamp_min(1e-12).sqrt()
    return (t * product.sum((1, 2, 3)).sign()[:, None, None]).flatten(1)
