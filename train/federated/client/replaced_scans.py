"""Replaced training scans: cached adversarial examples (pFedDef) and purified scans (Alg. 3)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.attacks import PGD
from core.moe import MixtureOfExperts
from core.pipeline import MedFedPure
from core.scan import to_uint8
from train.data.dataset import ScanDataset, batches
from train.device import autocast_logits
from train.federated import state_file
from train.phases.classifier import ClassifierConfig

BATCH = 50


def attacked(
    model: MixtureOfExperts, data: ScanDataset, config: ClassifierConfig, seed: int, path: Path
) -> ScanDataset:
    """Replace a share of the scans by adversarial examples of PGD on the model, in 8 bits.

    What was found is kept in `path`, and read from there where it lies already: until the next
    refresh the same attacked scans are learned from, whatever the model has become.

    Raises:
        StateError: the file is damaged.
    """
    if not path.is_file():
        chosen = np.random.default_rng(seed).permutation(len(data))
        rows = torch.from_numpy(np.sort(chosen[: round(len(data) * (1 - config.adv_clean))]))
        found = {"rows": rows, "scans": _found(model, data, rows, config)}
        state_file.write(path, found, {"digest": ""})
    kept, _ = state_file.read(path, "")
    scans = data.scans.copy()
    scans[kept["rows"].numpy()] = kept["scans"].numpy()
    return replace(data, scans=scans)


def purified(data: ScanDataset, system: MedFedPure) -> ScanDataset:
    """Replace scans that the detector flags by purified ones (Algorithm 3, lines 10 to 13)."""
    scans = data.scans.copy()
    for rows in batches(len(data), BATCH):
        x, _ = data.batch(rows, system.device)
        with torch.no_grad():
            score = system.score(system.detect(x))
            flagged = (score > system.tau).nonzero()[:, 0]
            if len(flagged):
                seeds = [rows[int(i)] for i in flagged]
                x_pur = system.purify(x[flagged], system.t_star(score[flagged]), seeds)
                scans[seeds] = _pixels(x_pur, scans)
    return replace(data, scans=scans)


def _found(
    model: MixtureOfExperts, data: ScanDataset, rows: Tensor, config: ClassifierConfig
) -> Tensor:
    """Compute adversarial examples (n, ...) uint8 of the rows."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    alpha = 1.25 * config.adv_eps / config.adv_steps
    attack = PGD(eps=config.adv_eps, alpha=alpha, steps=config.adv_steps, eight_bit=True)
    logits, out = autocast_logits(model, device), data.scans[:0]
    for part in rows.split(BATCH):
        x, y = data.batch(part, device)
        x_adv = attack(logits, x, y, part.tolist())
        out = np.concatenate([out, _pixels(x_adv, data.scans)])
    model.train(was_training)
    return torch.from_numpy(out)


def _pixels(x: Tensor, like: np.ndarray) -> np.ndarray:
    """Scans (B, C, H, W) in [0, 1] as they are stored: uint8, one channel without its axis."""
    return to_uint8(x).reshape(len(x), *like.shape[1:])
