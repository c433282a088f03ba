"""Purification of flagged training scans (Algorithm 3, lines 10 to 13)."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.pipeline import MedFedPure
from core.scan import to_uint8
from train.data.dataset import ScanDataset, batches

BATCH_SIZE = 50


def purify_training_scans(data: ScanDataset, system: MedFedPure) -> ScanDataset:
    """Return the scans with those purified that the system's detector flags."""
    scans = data.scans.copy()
    for rows in batches(len(data), BATCH_SIZE):
        x, _ = data.batch(rows, system.device)
        with torch.no_grad():
            score = system.score(system.detect(x))
            flagged = (score > system.tau).nonzero()[:, 0]
            if len(flagged):
                seeds = [rows[int(i)] for i in flagged]
                x_pur = system.purify(x[flagged], system.t_star(score[flagged], "paper"), seeds)
                scans[seeds] = to_uint8(x_pur).reshape(len(x_pur), *scans.shape[1:])
    return replace(data, scans=scans)
