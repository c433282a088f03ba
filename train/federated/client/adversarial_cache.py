"""Cached adversarial examples of a client's training scans (pFedDef, Kim et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.attacks import PGD
from core.moe import MixtureOfExperts
from core.scan import to_uint8
from train.data.dataset import ScanDataset
from train.device import autocast_logits
from train.federated import state_file
from train.phases.classifier import ClassifierConfig

BATCH_SIZE = 50


def attack_training_scans(
    model: MixtureOfExperts, data: ScanDataset, config: ClassifierConfig, seed: int, path: Path
) -> ScanDataset:
    """Return the scans with a share of them attacked by 8-bit PGD on the model.

    The adversarial examples are written to `path`, or read from it where the file exists: they
    stay the same until the next refresh, although the model changes.

    Raises:
        StateError: the file is damaged.
    """
    if not path.is_file():
        chosen = np.random.default_rng(seed).permutation(len(data))
        rows = torch.from_numpy(np.sort(chosen[: round(len(data) * (1 - config.adv_clean))]))
        examples = {"rows": rows, "scans": _attack_rows(model, data, rows, config)}
        state_file.write(path, examples, {"digest": ""})
    cached, _ = state_file.read(path, "")
    scans = data.scans.copy()
    scans[cached["rows"].numpy()] = cached["scans"].numpy()
    return replace(data, scans=scans)


def _attack_rows(
    model: MixtureOfExperts, data: ScanDataset, rows: Tensor, config: ClassifierConfig
) -> Tensor:
    """Return adversarial examples (n, ...) uint8 of the rows."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    alpha = 1.25 * config.adv_eps / config.adv_steps
    attack = PGD(eps=config.adv_eps, alpha=alpha, steps=config.adv_steps, eight_bit=True)
    logits, out = autocast_logits(model, device), data.scans[:0]
    for part in rows.split(BATCH_SIZE):
        x, y = data.batch(part, device)
        x_adv = attack(logits, x, y, part.tolist())
        out = np.concatenate([out, to_uint8(x_adv).reshape(len(x_adv), *data.scans.shape[1:])])
    model.train(was_training)
    return torch.from_numpy(out)
