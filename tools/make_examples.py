"""Synthetic example scans: phantoms with texture of the project's own diffusion model.

    python -m tools.thumbnails --data FOLDER --out thumbnails.npy
    python -m tools.make_examples thumbnails.npy

A phantom is rotated, scaled and shifted, noised to depth `DEPTH` and denoised: texture comes from
the model, anatomy from the drawing. A 3 x 3 mean removes grain, which the detector would flag.
Examples are candidates that are right when clean, flipped by the attack without defence, and right
with it, and one failure, labelled as such. None may resemble a training scan: `tools.thumbnails`
writes the thumbnails to compare with.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import core
from core.pipeline import MedFedPure
from core.purifier import Purifier, PurifierConfig
from core.scan import from_uint8, to_png, to_uint8
from core.steganalysis import blur
from demo.analysis.attack import TRUTHS, AttackSettings, iterate_attack
from demo.examples import FOLDER, Example
from demo.phantom import draw_phantom

DEPTH = 60  # of 1000: anatomy stays, texture is the model's
NOISES = 8  # denoised and averaged
MAX_CORRELATION = 0.9
Correlation = Callable[[Tensor], float]


def build_correlation(known: np.ndarray) -> Correlation:
    """Build a function: highest correlation of a scan with thumbnails (N, side ** 2)."""
    side = round(known.shape[1] ** 0.5)

    def correlation(scan: Tensor) -> float:
        picture = Image.fromarray(to_uint8(scan)[0])
        small = picture.resize((side, side), Image.Resampling.BILINEAR)
        flat = np.asarray(small, dtype=np.float32).ravel()
        flat -= flat.mean()
        return float((known @ (flat / max(float(np.linalg.norm(flat)), 1e-6))).max())

    return correlation


def generate_candidates(
    system: MedFedPure, count: int, depth: int = DEPTH
) -> Iterator[tuple[bool, Tensor]]:
    """Yield (drawn with a tumour, scan (1, 224, 224) on the 8-bit grid), `count` times."""
    config = PurifierConfig(noises=NOISES)
    painter = Purifier(system.purifier.noise_pred, system.purifier.diffusion, config)
    for seed in range(count):
        tumour = seed % 2 == 0
        x = pose(draw_phantom(seed, tumour), seed)[None].to(system.device)
        with torch.no_grad():
            painted = blur(painter(x, torch.full((1,), depth, device=system.device), [seed]))
        yield tumour, from_uint8(to_uint8(painted[0]))


def pose(scan: Tensor, seed: int) -> Tensor:
    """Rotate a scan (1, H, W) by up to 45 degrees, shrink it by up to a quarter, and shift it."""
    generator = torch.Generator().manual_seed(seed)
    turn, wide, high, right, down = (torch.rand(5, generator=generator) * 2 - 1).tolist()
    angle, sx, sy = turn * math.pi / 4, 1.15 + 0.15 * wide, 1.15 + 0.15 * high
    cos, sin = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[sx * cos, -sx * sin, right / 5], [sy * sin, sy * cos, down / 5]])
    grid = F.affine_grid(theta[None], [1, *scan.shape], align_corners=False)
    return F.grid_sample(scan[None], grid, align_corners=False)[0].clamp(0, 1)


def judge(system: MedFedPure, scan: Tensor, tumour: bool, correlation: float) -> Example:
    """Measure the page's default attack on a scan, without and with the defence."""
    settings = AttackSettings(truth=TRUTHS[1 + tumour])
    *_, last = iterate_attack(system, scan, settings)
    clean = system.read(scan, settings.seed)
    attacked = system.read(last.x_adv[0].cpu(), settings.seed)
    undefended_was = (clean.tumour_probability_undefended >= 0.5) == tumour
    undefended_is = (attacked.tumour_probability_undefended >= 0.5) == tumour
    return Example(
        name="tumour" if tumour else "no tumour",
        levels=to_uint8(scan),
        tumour=tumour,
        correlation=correlation,
        read_right=clean.is_tumour == tumour,
        flips_undefended=undefended_was and not undefended_is,
        right_defended=attacked.is_tumour == tumour,
    )


def choose(judged: Iterable[Example], each: int = 3) -> list[Example]:
    """Choose the first `each` of both classes without a fault; a failure, if any, takes one place.

    Stops when all are found. Candidates too similar to a training scan are skipped.
    """
    good: dict[bool, list[Example]] = {True: [], False: []}
    failures: list[Example] = []
    for example in judged:
        if example.correlation >= MAX_CORRELATION:
            continue
        if example.is_failure:
            failures.append(example)
        elif len(good[example.tumour]) < each:
            good[example.tumour].append(example)
        if failures and all(len(found) == each for found in good.values()):
            break
    telling = [f for f in failures if f.read_right and f.flips_undefended] or failures
    chosen = [*good[True], *good[False]]
    return [*chosen[: 2 * each - 1], telling[0]] if telling else chosen


def make(system: MedFedPure, correlation: Correlation, folder: Path, count: int) -> list[Example]:
    """Draw, judge, choose and write examples; those in the folder are replaced."""
    drawn = generate_candidates(system, count)
    chosen = choose(judge(system, scan, tumour, correlation(scan)) for tumour, scan in drawn)
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.png"), *folder.glob("*.json")]:
        old.unlink()
    for index, example in enumerate(chosen, start=1):
        facts = {key: value for key, value in asdict(example).items() if key != "levels"}
        (folder / f"{index}.png").write_bytes(to_png(from_uint8(example.levels)))
        (folder / f"{index}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return chosen


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("thumbnails", type=Path, help="file written by tools.thumbnails")
    parser.add_argument("--weights", type=Path, help="folder of weights (default: the project's)")
    parser.add_argument("--count", type=int, default=60, help="candidates at most")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the examples")
    args = parser.parse_args()
    known = np.load(args.thumbnails, allow_pickle=False)
    for example in make(core.load(args.weights), build_correlation(known), args.out, args.count):
        print(f"{example.name}: {example.describe()}")


if __name__ == "__main__":
    main()
