"""What the fused detector measures in a scan, each feature a number that attacks tend to raise.

Sources: whitened residuals and the quietest patches (robust statistics of noise), the diffusion
model's own noise estimate at small t (Zhang et al. 2023, EPS-AD), and the stability of predictions
under a blur (Xu et al. 2018, feature squeezing).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.diffusion import Diffusion, seeded_noise, to_model
from core.mae import patch_mean
from core.residual import blur, high_pass

FEATURES = (
    "residual_mean",  # whitened fine-band energy of the MAE's residual, mean over patches
    "residual_top",  # the same, mean of the highest fifth
    "quiet",  # fine-band energy of the quietest fifth of the patches, log
    "noise_estimate",  # noise that the diffusion model sees in the scan as it is, log
    "noise_quiet",  # the same in the patches where it sees least
    "noise_error",  # error of its prediction after known noise was added, log
    "plain_shift",  # how far a 3 x 3 blur moves the plain classifier's log-odds
    "trained_shift",  # how far it moves the trained mixture's
    "residual_net",  # log-odds of the network in residual.py
)
NOISE_T, ERROR_T = 8, 15
FLOOR = 1e-7  # energies below a hundredth of an 8-bit level squared are taken as equal


class Measurements:
    """Computes FEATURES with lent networks; holds no parameters of its own."""

    def __init__(
        self,
        noise_pred: nn.Module,
        diffusion: Diffusion,
        trained: Callable[[Tensor], Tensor],
        plain: Callable[[Tensor], Tensor],
        residual_net: Callable[[Tensor], Tensor],
    ) -> None:
        self.noise_pred = noise_pred
        self.diffusion = diffusion
        self.trained = trained
        self.plain = plain
        self.residual_net = residual_net

    def __call__(
        self, x: Tensor, residual: Tensor, clean_mean: Tensor, clean_std: Tensor, patch_size: int
    ) -> Tensor:
        """(B, F) for scans and residuals (B, C, H, W); clean_mean and clean_std (H / p, W / p)."""
        white = ((log_band_energy(residual, patch_size) - clean_mean) / clean_std).flatten(1)
        fine = patch_mean(high_pass(x).square(), patch_size).flatten(1)
        noise, noise_patches, error = self._noise(x, patch_size)
        soft = blur(x)
        columns = [
            white.mean(1),
            _extreme(white, largest=True),
            (_extreme(fine, largest=False) + FLOOR).log(),
            (noise + FLOOR).log(),
            (_extreme(noise_patches, largest=False) + FLOOR).log(),
            (error + FLOOR).log(),
            (log_odds(self.plain(x)) - log_odds(self.plain(soft))).abs().add(0.05).log(),
            (log_odds(self.trained(x)) - log_odds(self.trained(soft))).abs().add(0.05).log(),
            self.residual_net(x),
        ]
        return torch.stack(columns, dim=1)

    def _noise(self, x: Tensor, patch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        b = len(x)
        scaled = to_model(x)
        # one map for every scan: no randomness
        fixed = seeded_noise(x.shape[1:], [0]).to(x).expand_as(x)
        t = torch.tensor([NOISE_T, ERROR_T], device=x.device).repeat_interleave(b)
        as_is = self.diffusion.q_sample(scaled, t[:b], torch.zeros_like(x))
        noised = self.diffusion.q_sample(scaled, t[b:], fixed)
        seen = self.noise_pred(torch.cat([as_is, noised]), t)
        estimate = patch_mean(seen[:b].square(), patch_size).flatten(1)
        error = (seen[b:] - fixed).square().flatten(1).mean(1)
        return estimate.mean(1), estimate, error


def log_band_energy(residual: Tensor, patch_size: int) -> Tensor:
    """Logarithm of the fine-band energy of each patch, (B, H / p, W / p)."""
    return (patch_mean(high_pass(residual).square(), patch_size) + FLOOR).log()


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds (B,) from (B, C): of class 1 of two, else of the most likely against the rest."""
    log_probs = logits.log_softmax(1)
    if logits.shape[1] == 2:
        return log_probs[:, 1] - log_probs[:, 0]
    top = log_probs.max(1).values
    return top - torch.log1p(-top.exp().clamp_max(1 - 1e-6))


def _extreme(patches: Tensor, *, largest: bool) -> Tensor:
    """Mean of the highest or lowest fifth of (B, L), (B,)."""
    k = max(1, patches.shape[1] // 5)
    return patches.topk(k, dim=1, largest=largest).values.mean(1)
