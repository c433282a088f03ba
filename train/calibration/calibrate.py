"""Calibration of a system: temperatures, operating points, fused score, tau, purifier span.

The fused score is fitted on clean and attacked training scans; thresholds and temperatures are
chosen on validation scans. Test scans are never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks import paper_attack
from core.classifier import Calibrated
from core.detector import SCORES, Detector
from core.features import log_band_energy
from core.pipeline import MedFedPure
from train.calibration.fusion import CHANCE_ERRORS, FusionConfig, fuse
from train.calibration.thresholds import store_thresholds
from train.data.dataset import ScanDataset, batches, map_batches
from train.trainer import ReportFn

NUM_PARTS = 10  # of the cross-validation that chooses the operating point
ACCURACY_TOLERANCE = 0.004  # accuracies that differ by less count as equal
LOG_TEMPERATURE_SD = 0.5  # of the prior on ln T


@dataclass(frozen=True)
class CalibrateConfig(FusionConfig):
    """Number of training scans for the detector's fusion and of validation scans for all else."""

    fit_scans: int = 240
    val_scans: int = 480


def calibrate(
    system: MedFedPure,
    train: ScanDataset,
    val: ScanDataset,
    config: CalibrateConfig,
    report: ReportFn = print,
) -> dict[str, float]:
    """Calibrate a trained system in place; return metrics on validation scans."""
    figures: dict[str, float] = {}
    val = val.thin(config.val_scans, truncate=True)
    x_val, y_val = val.all(system.device)
    for name, classifier in (("classifier", system.classifier), ("plain", system.plain)):
        metrics = set_operating_point(classifier, x_val, y_val, val.weights, val.groups)
        figures |= {f"{name}_{k}": v for k, v in metrics.items()}
        report(
            f"{name}: temperature {float(classifier.temperature):.3f}, "
            f"{figures[f'{name}_balanced']:.4f} balanced accuracy on validation scans"
        )
    x, y = train.thin(config.fit_scans, truncate=True).all(system.device)
    _whiten(system.detector, x)
    figures["fused_largest_share"] = fuse(system, x, y, config, report)
    clean = _score_scans(system.detector, x_val)
    hit = _score_scans(system.detector, _attack_validation(system, x_val, y_val))
    for name in SCORES:
        store_thresholds(system.detector, name, clean[name], hit[name])
        figures[f"{name}_tau"] = system.detector.tau(name)
        figures[f"{name}_detected"] = float((hit[name] > system.detector.tau(name)).float().mean())
        report(
            f"detector '{name}': {figures[f'{name}_detected']:.3f} of attacked validation scans "
            "flagged"
        )
    return figures


def set_operating_point(
    classifier: Calibrated, x: Tensor, y: Tensor, weights: Tensor, groups: Sequence[int]
) -> dict[str, float]:
    """Set the temperature and, with two classes, the bias in place; return metrics.

    The bias moves the best operating point to probability one half; the temperature is that of
    `find_temperature`. The weights are those of training.
    """
    y = y.cpu()
    logits = map_batches(classifier.model, x).double()
    weights = weights / weights.sum()
    shift = torch.zeros(logits.shape[1], dtype=torch.float64)
    if len(shift) == 2:
        cut = _choose_cut(logits[:, 1] - logits[:, 0], y, weights, torch.as_tensor(list(groups)))
        shift = cut * torch.tensor([0.5, -0.5]).double()
    moved = logits + shift
    temperature = find_temperature(moved, y, weights, groups)
    classifier.temperature.fill_(temperature)
    classifier.bias.copy_(shift / temperature)
    balanced = float((weights * (moved.argmax(1) == y)).sum())
    return {"balanced": balanced, "temperature": temperature}


def find_temperature(logits: Tensor, y: Tensor, weights: Tensor, groups: Sequence[int]) -> float:
    """Find the temperature of logits (N, C), float64, with weights (N,) of sum 1.

    It minimises the weighted cross-entropy (Guo et al. 2017) under a prior, ln T ~ N(0,
    `LOG_TEMPERATURE_SD`^2), in which a group of near-duplicates counts as one scan: without it, few
    scans that are all classified correctly would drive T to 0.
    """
    temperatures = torch.logspace(-1, 1.3, 200, dtype=torch.float64)
    losses = torch.stack(
        [(weights * F.cross_entropy(logits / t, y, reduction="none")).sum() for t in temperatures]
    )
    prior = temperatures.log().square() / (2 * LOG_TEMPERATURE_SD**2)
    return float(temperatures[int((len(set(groups)) * losses + prior).argmin())])


def _choose_cut(margin: Tensor, y: Tensor, weights: Tensor, groups: Tensor) -> float:
    """Return the margin above which the answer is 'tumour', chosen by cross-validation.

    Each of `NUM_PARTS` parts of the near-duplicate groups is classified at the best cut of the
    others. The cut stays 0 unless this is better by more than chance: a cut that one group of three
    moved once cost 10 % of the accuracy on other scans.
    """
    predicted = torch.empty_like(y, dtype=torch.bool)
    unique, of_group = groups.unique(return_inverse=True)
    for first in range(NUM_PARTS):
        out = torch.isin(groups, unique[first::NUM_PARTS])
        if out.all():
            return 0.0
        predicted[out] = margin[out] > _find_best_cut(margin[~out], y[~out], weights[~out])
    better = (predicted == (y == 1)).double() - ((margin > 0) == (y == 1)).double()
    gains = torch.zeros(len(unique), dtype=torch.float64).index_add(0, of_group, weights * better)
    # the norm is the standard deviation of a sum of gains with random signs
    min_gain = max(ACCURACY_TOLERANCE, CHANCE_ERRORS * float(gains.norm()))
    return _find_best_cut(margin, y, weights) if gains.sum() > min_gain else 0.0


def _find_best_cut(margin: Tensor, y: Tensor, weights: Tensor) -> float:
    """Return the middle one of the cuts with the best weighted accuracy.

    Candidates are the midpoints of neighbouring margins; accuracies within `ACCURACY_TOLERANCE`
    count as equal.
    """
    order = margin.sort().values
    cuts = torch.cat([order[:1] - 1, (order[1:] + order[:-1]) / 2, order[-1:] + 1])
    accuracy = torch.stack([(weights * ((margin > c) == (y == 1))).sum() for c in cuts])
    best = cuts[accuracy >= accuracy.max() - ACCURACY_TOLERANCE * weights.sum()]
    return float(best[(best - best.mean()).abs().argmin()])


def _whiten(detector: Detector, x: Tensor) -> None:
    """Set clean mean and spread of every patch's fine-band energy from training scans."""
    energies = torch.cat(
        [
            log_band_energy(b - detector.mae.reconstruct(b), detector.mae.config.patch_size)
            for b in x.split(50)
        ]
    )
    detector.clean_mean.copy_(energies.mean(0))
    detector.clean_std.copy_(energies.std(0).clamp_min(0.25))


def _attack_validation(system: MedFedPure, x: Tensor, y: Tensor) -> Tensor:
    """Attack scans by the paper's attack in 8 bits, on plain and trained classifier in turn."""
    out = x.clone()
    attack = paper_attack(eight_bit=True)
    for start, fn in ((0, system.plain_logits), (1, system.classifier_logits)):
        picked = range(start, len(x), 2)
        for rows in batches(len(picked), 50):
            chosen = [picked[i] for i in rows]
            out[chosen] = attack(fn, x[chosen], y[chosen], chosen)
    return out


@torch.no_grad()
def _score_scans(detector: Detector, x: Tensor) -> dict[str, Tensor]:
    parts = [detector(b).scores for b in x.split(50)]
    return {name: torch.cat([p[name] for p in parts]).cpu() for name in SCORES}
