"""Masked autoencoder: error on hidden patches against filling in from visible neighbours."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.parallel import progress
from bench.result_file import ResultFile
from core import metrics
from core.mae import MaskedAutoencoder
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

HELP = "hidden patches, against filling in from visible neighbours"
POWERS = (2.0, 3.0, 4.0, 6.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--val-limit", "--batch-size")


def run(args: argparse.Namespace) -> None:
    """Measures the autoencoder."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    folds = options.open_fold(args), options.open_validation(args)
    measure(store, system.pipeline, *folds, args.batch_size)
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    validation: ScanDataset,
    batch_size: int = 32,
) -> None:
    """Fills `store`: the filling's exponent chosen on validation scans, then the test scans."""
    mae = pipeline.detector.mae
    choice = store.row("filling", lambda: choose_power(mae, validation, batch_size))
    for masks in ("random", "lattice"):
        row = store.row(
            f"{masks} masks",
            lambda m=masks: compare(mae, test, choice["power"], batch_size, masks=m),
        )
        if row["ratio"] >= 1:
            store.warn(f"{masks} masks: no better than filling in from visible neighbours")


def choose_power(
    mae: MaskedAutoencoder, validation: ScanDataset, batch_size: int = 32
) -> dict[str, Any]:
    """Returns the exponent of distance that fills validation scans best."""
    errors = {p: compare(mae, validation, p, batch_size)["filling_mse"] for p in POWERS}
    best = min(errors, key=lambda p: errors[p])
    return {"power": best, "validation": {str(p): e for p, e in errors.items()}}


@torch.no_grad()
def compare(
    mae: MaskedAutoencoder,
    fold: ScanDataset,
    power: float,
    batch_size: int = 32,
    masks: str = "random",
) -> dict[str, Any]:
    """Returns both mean squared errors on hidden patches, and their ratio with its interval.

    `masks` are the paper's random ones, or the lattice that the detector scores with.
    """
    own, filled = [], []
    device = next(mae.parameters()).device
    for x, _, seeds in progress(fold.batches(batch_size, device), "hidden patches"):
        ids_keep = torch.stack([_choose_visible(mae, masks, seed) for seed in seeds]).to(device)
        visible = mark_visible(mae, x, ids_keep)
        hidden = ~visible
        predicted = mae.unpatchify(mae(x, ids_keep))
        for out, errors in ((predicted, own), (fill_in(x, visible, power), filled)):
            squared = (out - x).square() * hidden
            errors.append((squared.flatten(1).sum(1) / hidden.flatten(1).sum(1)).double().cpu())
    a, b = torch.cat(own), torch.cat(filled)
    ratio = float(a.mean() / b.mean())
    return {
        "mae_mse": float(a.mean()),
        "filling_mse": float(b.mean()),
        "ratio": ratio,
        # of the mean excess over the ratio, which is zero on average, scaled back to the ratio
        "ratio_interval": [
            ratio + end / float(b.mean())
            for end in metrics.group_bootstrap_interval(a - ratio * b, fold.groups)
        ],
        "power": power,
        "n": len(fold),
    }


def _choose_visible(mae: MaskedAutoencoder, masks: str, seed: int) -> Tensor:
    """Returns the visible patches of one scan."""
    if masks == "lattice":
        return mae.complementary()[seed % 4]
    return mae.random_masking(1, torch.Generator().manual_seed(seed))[0][0, : mae.config.num_kept]


def mark_visible(mae: MaskedAutoencoder, x: Tensor, ids_keep: Tensor) -> Tensor:
    """Returns bool like x (B, C, H, W): the pixels of the patches `ids_keep` (B, kept)."""
    patches = torch.zeros_like(mae.patchify(x))
    patches.scatter_(1, ids_keep[:, :, None].expand(-1, -1, patches.shape[2]), 1.0)
    return mae.unpatchify(patches) > 0


def fill_in(x: Tensor, visible: Tensor, power: float) -> Tensor:
    """Fills hidden pixels with the mean of visible ones, by distance^-power (Shepard 1968).

    Both sums are convolutions of the image with distance^-power, done by FFT.
    """
    h, w = x.shape[2:]
    dy = torch.arange(-(h - 1), h, dtype=torch.float64, device=x.device)[:, None]
    dx = torch.arange(-(w - 1), w, dtype=torch.float64, device=x.device)[None, :]
    squared = dy.square() + dx.square()
    kernel = torch.where(squared > 0, squared.clamp_min(1) ** (-power / 2), 0.0)
    size = (3 * h - 2, 3 * w - 2)
    spectrum = torch.fft.rfft2(kernel, s=size)

    def around(values: Tensor) -> Tensor:
        full = torch.fft.irfft2(torch.fft.rfft2(values.double(), s=size) * spectrum, s=size)
        return full[..., h - 1 : 2 * h - 1, w - 1 : 2 * w - 1]

    total, weight = around(x * visible), around(visible.double())
    return torch.where(visible, x, (total / weight.clamp_min(1e-12)).to(x)).clamp(0, 1)


def table(results: md.Results) -> str:
    """Renders the errors on hidden patches."""
    lines = []
    for protocol, result in md.results_of(results, "mae", md.PROTOCOLS).items():
        for name, row in result["rows"].items():
            if "ratio" in row:
                errors = [f"{row[k]:.5f}" for k in ("mae_mse", "filling_mse")]
                low, high = row["ratio_interval"]
                ratio = f"{row['ratio']:.2f} [{low:.2f} to {high:.2f}]"
                lines.append([protocol, name, *errors, ratio, str(row["n"])])
    head = ["protocol", "masks", "autoencoder, MSE", "filling in, MSE", "ratio", "n"]
    return md.table(head, lines)
