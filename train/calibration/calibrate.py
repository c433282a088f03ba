"""Calibration: temperatures and operating points, the fused detector, tau and the purifier's span.

The fusion is fitted on clean and attacked training scans; every threshold and temperature is
chosen on validation scans. Test scans are never touched.
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
from train.data.dataset import ScanDataset, batches, map_batches
from train.trainer import ReportFn

PARTS = 10  # of the validation scans, each left out once to choose the operating point
TIE = 0.004  # accuracies that differ by less count as equal
SPREAD = 0.5  # of a temperature's logarithm, before any scan is seen


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
    """Calibrates a trained system in place and returns what was measured on validation scans."""
    figures: dict[str, float] = {}
    val = val.thin(config.val_scans, truncate=True)
    x_val, y_val = val.all(system.device)
    for name, classifier in (("classifier", system.classifier), ("plain", system.plain)):
        found = _operating_point(classifier, x_val, y_val, val.weights, val.groups)
        figures |= {f"{name}_{k}": v for k, v in found.items()}
        report(
            f"{name}: temperature {float(classifier.temperature):.3f}, "
            f"{figures[f'{name}_balanced']:.4f} balanced accuracy on validation scans"
        )
    x, y = train.thin(config.fit_scans, truncate=True).all(system.device)
    _whiten(system.detector, x)
    figures["fused_largest_share"] = fuse(system, x, y, config, report)
    clean = _scores(system.detector, x_val)
    hit = _scores(system.detector, _val_attack(system, x_val, y_val))
    for name in SCORES:
        system.detector.set_validation(name, clean[name], hit[name])
        figures[f"{name}_tau"] = system.detector.tau(name)
        figures[f"{name}_detected"] = float((hit[name] > system.detector.tau(name)).float().mean())
        report(
            f"detector '{name}': {figures[f'{name}_detected']:.3f} of attacked validation scans "
            "flagged"
        )
    return figures


def _operating_point(
    classifier: Calibrated, x: Tensor, y: Tensor, weights: Tensor, groups: Sequence[int]
) -> dict[str, float]:
    """Sets the temperature and, with two classes, the bias in place.

    The bias moves the best operating point to probability one half. The temperature minimises the
    weighted cross-entropy (Guo et al. 2017) under a prior, ln T ~ N(0, `SPREAD`^2), against which a
    group of near-duplicates counts once: a hospital's few scans, all read right, would make it
    vanish. The weights are those of training.
    """
    y = y.cpu()
    logits = map_batches(classifier.model, x).double()
    weights = weights / weights.sum()
    shift = torch.zeros(logits.shape[1], dtype=torch.float64)
    if len(shift) == 2:
        cut = _cut(logits[:, 1] - logits[:, 0], y, weights, torch.as_tensor(list(groups)))
        shift = cut * torch.tensor([0.5, -0.5]).double()
    moved = logits + shift
    temperatures = torch.logspace(-1, 1.3, 200, dtype=torch.float64)
    losses = torch.stack(
        [(weights * F.cross_entropy(moved / t, y, reduction="none")).sum() for t in temperatures]
    )
    prior = temperatures.log().square() / (2 * SPREAD**2)
    temperature = float(temperatures[int((len(set(groups)) * losses + prior).argmin())])
    classifier.temperature.fill_(temperature)
    classifier.bias.copy_(shift / temperature)
    balanced = float((weights * (moved.argmax(1) == y)).sum())
    return {"balanced": balanced, "temperature": temperature}


def _cut(margin: Tensor, y: Tensor, weights: Tensor, groups: Tensor) -> float:
    """Return the margin above which the answer is 'tumour', chosen by cross-validation.

    The best cut on few scans is a bad one: each of `PARTS` parts of the groups of near-duplicates
    is read at the cut that is best on the others. It stays 0 unless that is better by more than
    chance: one group at a hospital that had three once moved a cut, and cost a tenth of all
    other scans.
    """
    said = torch.empty_like(y, dtype=torch.bool)
    unique, of_group = groups.unique(return_inverse=True)
    for first in range(PARTS):
        out = torch.isin(groups, unique[first::PARTS])
        if out.all():
            return 0.0
        said[out] = margin[out] > _best_cut(margin[~out], y[~out], weights[~out])
    better = (said == (y == 1)).double() - ((margin > 0) == (y == 1)).double()
    gains = torch.zeros(len(unique), dtype=torch.float64).index_add(0, of_group, weights * better)
    enough = max(
        TIE, CHANCE_ERRORS * float(gains.norm())
    )  # the norm: a sum of so many signs by chance
    return _best_cut(margin, y, weights) if gains.sum() > enough else 0.0


def _best_cut(margin: Tensor, y: Tensor, weights: Tensor) -> float:
    """Return the middle one of the cuts with the best weighted accuracy.

    Between neighbouring margins accuracy is constant, so the midpoints are all there is to try;
    differences of up to `TIE` count as none.
    """
    order = margin.sort().values
    cuts = torch.cat([order[:1] - 1, (order[1:] + order[:-1]) / 2, order[-1:] + 1])
    accuracy = torch.stack([(weights * ((margin > c) == (y == 1))).sum() for c in cuts])
    best = cuts[accuracy >= accuracy.max() - TIE * weights.sum()]
    return float(best[(best - best.mean()).abs().argmin()])


def _whiten(detector: Detector, x: Tensor) -> None:
    """Clean mean and spread of every patch's fine-band energy, from training scans."""
    energies = torch.cat(
        [
            log_band_energy(b - detector.mae.reconstruct(b), detector.mae.config.patch_size)
            for b in x.split(50)
        ]
    )
    detector.clean_mean.copy_(energies.mean(0))
    detector.clean_std.copy_(energies.std(0).clamp_min(0.25))


def _val_attack(system: MedFedPure, x: Tensor, y: Tensor) -> Tensor:
    """The paper's attack in 8 bits: alternating plain and trained classifier as its target."""
    out = x.clone()
    attack = paper_attack(eight_bit=True)
    for start, fn in ((0, system.plain_logits), (1, system.classifier_logits)):
        picked = range(start, len(x), 2)
        for rows in batches(len(picked), 50):
            chosen = [picked[i] for i in rows]
            out[chosen] = attack(fn, x[chosen], y[chosen], chosen)
    return out


@torch.no_grad()
def _scores(detector: Detector, x: Tensor) -> dict[str, Tensor]:
    parts = [detector(b).scores for b in x.split(50)]
    return {name: torch.cat([p[name] for p in parts]).cpu() for name in SCORES}
