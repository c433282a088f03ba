"""Detector: every score and feature, against attacks and harmless changes."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.robustness.filters import jpeg
from bench.summaries import (
    compute_roc,
    count_scores,
    group_rows,
    measure_separation,
    share_by_group,
)
from core import load
from core.attacks import paper_attack
from core.detector import SCORES, clip_features
from core.diffusion import seeded_noise
from core.features import FEATURES
from core.pipeline import MedFedPure
from core.steganalysis import blur
from train.calibration.fusion import compute_feature_shares
from train.data.dataset import ScanDataset

HELP = "AUROC and false-positive rates of every detector score"
HEADLINE = 0.015
CURVE = (HEADLINE, 0.004, 0.008, 0.031)
SURFACES = ("plain", "trained")
Change = Callable[[Tensor, list[int]], Tensor]
LoadSystem = Callable[[], MedFedPure]
BENIGN: dict[str, Change] = {
    "noise sigma .01": lambda x, seeds: x + 0.01 * seeded_noise(x.shape[1:], seeds).to(x),
    "3 x 3 blur": lambda x, _: blur(x),
    "JPEG quality 75": lambda x, _: jpeg(x, 75),
    "gamma 1.2": lambda x, _: x.pow(1.2),
    "bias field of 20 %": lambda x, seeds: add_bias_field(x, seeds),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size")


def run(args: argparse.Namespace) -> None:
    """Measures the detector."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    pipeline = system.pipeline
    hospitals = {
        h: partial(load, args.weights, device=pipeline.device, hospital=h)
        for h in pipeline.info.get("hospitals", [])
    }
    measure(store, pipeline, options.open_fold(args), args.batch_size, hospitals)
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    batch_size: int = 32,
    hospitals: Mapping[int, LoadSystem] | None = None,
) -> None:
    """Fills `store`: clean scans, harmless changes, then a row per attacked classifier and eps.

    `hospitals` load their systems, each with thresholds of its own.
    """
    score = partial(score_fold, fold=test, batch_size=batch_size)
    clean = score(pipeline, label="clean")
    classifiers = {"plain": pipeline.plain_logits, "trained": pipeline.classifier_logits}

    def measure_hospital(load_system: LoadSystem) -> dict[str, Any]:
        system = load_system()
        found = score(system, label="hospital")
        return {"n": len(test), "flagged": measure_flagged(system, found, test.groups)}

    def measure_change(name: str, change: Change) -> dict[str, Any]:
        found = score(pipeline, lambda x, y, seeds: quantize(change(x, seeds)), label=name)
        return measure_alarms(pipeline, found, test.groups)

    def measure_attack(surface: str, eps: float) -> dict[str, Any]:
        attack = paper_attack(eps, eight_bit=True)
        found = score(pipeline, partial(attack, classifiers[surface]), label=surface)
        return {"attack": vars(attack), **measure_detection(pipeline, clean, found, test.groups)}

    store.row("clean", lambda: measure_alarms(pipeline, clean, test.groups, test.sources))
    for number, load_system in (hospitals or {}).items():
        store.row(f"clean, hospital {number}", partial(measure_hospital, load_system))
    for name, change in BENIGN.items():
        store.row(f"benign: {name}", partial(measure_change, name, change))
    for surface, eps in itertools.product(SURFACES, CURVE):
        store.row(f"{surface}, eps {eps}", partial(measure_attack, surface, eps))
    for surface in SURFACES:
        row = store.content["rows"][f"{surface}, eps {HEADLINE}"]
        if row["scores"]["fused"]["auroc"] < row["scores"]["paper"]["auroc"]:
            store.warn(f"against {surface}, the fused score is worse than the paper's")


def add_bias_field(x: Tensor, seeds: Sequence[int], depth: float = 0.2) -> Tensor:
    """Scales scans (B, 1, H, W) smoothly by up to 1 +- `depth`, as a receive coil does."""
    coarse = seeded_noise((1, 3, 3), seeds).to(x)
    field = F.interpolate(coarse, size=x.shape[2:], mode="bicubic", align_corners=True)
    return x * (1 + depth * field / field.abs().amax((1, 2, 3), keepdim=True))


def quantize(x: Tensor) -> Tensor:
    """Rounds to the 256 levels of a file."""
    return (x.clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def score_scans(pipeline: MedFedPure, x: Tensor) -> dict[str, Tensor]:
    """Returns every named score and single feature of scans (B, 1, H, W), each (B,)."""
    found = pipeline.detect(x)
    features = {f"feature {n}": found.features[:, i] for i, n in enumerate(FEATURES)}
    return {**found.scores, **features}


def score_fold(
    pipeline: MedFedPure,
    change: Callable[[Tensor, Tensor, list[int]], Tensor] | None = None,
    *,
    fold: ScanDataset,
    label: str,
    batch_size: int,
) -> dict[str, Tensor]:
    """Returns the scores of the fold's scans after `change(x, y, seeds)`, on the CPU."""
    parts = []
    for x, y, seeds in progress(fold.batches(batch_size, pipeline.device), label):
        parts.append(score_scans(pipeline, change(x, y, seeds) if change else x))
    return {name: torch.cat([p[name] for p in parts]).cpu() for name in parts[0]}


def measure_alarms(
    pipeline: MedFedPure,
    found: dict[str, Tensor],
    groups: Sequence[int],
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the share of scans above each score's threshold tau, tau, and the scores' histogram.

    5 % of clean validation scans lie above tau. Shares by source where sources are given.
    """
    places = {}
    for place, rows in group_rows(sources).items():
        part = {name: found[name][rows] for name in SCORES}
        places[place] = {"flagged": measure_flagged(pipeline, part, [groups[i] for i in rows])}
    return {
        "n": len(groups),
        **({"sources": places} if places else {}),
        "flagged": measure_flagged(pipeline, found, groups),
        "deciding": pipeline.config.detector.score,
        "tau": {name: pipeline.detector.tau(name) for name in SCORES},
        "histogram": {name: count_scores(found[name], name) for name in SCORES},
    }


def measure_flagged(
    system: MedFedPure, found: dict[str, Tensor], groups: Sequence[int]
) -> dict[str, Any]:
    """Returns the share of scans above each score's stored tau."""
    return {
        name: share_by_group(found[name] > system.detector.tau(name), groups) for name in SCORES
    }


def measure_detection(
    pipeline: MedFedPure,
    clean: dict[str, Tensor],
    attacked: dict[str, Tensor],
    groups: Sequence[int],
) -> dict[str, Any]:
    """Returns AUROC and TPR of every score, attacked scans against the same scans clean.

    `carried` is the share of each feature in their distance in the fused score.
    """
    scores = {
        name: measure_separation(part, attacked[name], groups) for name, part in clean.items()
    }
    for name in SCORES:
        scores[name]["roc"] = compute_roc(clean[name], attacked[name])
    share = compute_feature_shares(
        pipeline.detector.weight.cpu(), *(_standardize(pipeline, f) for f in (clean, attacked))
    )
    by_name = dict(zip(FEATURES, share.tolist(), strict=True))
    return {"scores": scores, "carried": by_name, **measure_alarms(pipeline, attacked, groups)}


def _standardize(pipeline: MedFedPure, found: dict[str, Tensor]) -> Tensor:
    """Returns features (N, F) as the fused score adds them up."""
    detector = pipeline.detector
    features = torch.stack([found[f"feature {name}"] for name in FEATURES], 1)
    return clip_features((features - detector.centre.cpu()) / detector.spread.cpu())


def table(results: md.Results) -> str:
    """Renders AUROC and TPR of the scores, and false positives under harmless changes."""
    parts = []
    for protocol, result in md.results_of(results, "detection", md.PROTOCOLS).items():
        attacked, alarms, notes = [], [], []
        for name, row in result["rows"].items():
            for score, cells in row.get("scores", {}).items():
                if score.startswith("feature"):
                    continue
                rates = [md.percent(row["flagged"][score]["accuracy"])]
                rates += [md.percent(cells["tpr_at_5"]), md.percent(cells["tpr_at_1"])]
                attacked.append([name, score, md.area(cells), *rates])
            if "carried" in row:
                most = max(row["carried"], key=row["carried"].get)
                notes.append(f"{name}: {most}, {md.percent(row['carried'][most])} %")
            if "scores" not in row:
                places = row.get("sources", {})
                blocks = {name: row} | {f"{name}, {place}": places[place] for place in places}
                for label, block in blocks.items():
                    shares = (block["flagged"][s]["accuracy"] for s in ("paper", "fused"))
                    alarms.append([label, *map(md.percent, shares)])
        head = ["attack on", "score", "AUROC", "flagged, %"]
        head += ["TPR at 5 % FPR, %", "TPR at 1 % FPR, %"]
        text = f"**{protocol}**\n\n{md.table(head, attacked)}"
        text += f"\n\n{md.table(['scans', 'paper: flagged, %', 'fused: flagged, %'], alarms)}"
        n = next(row["n"] for row in result["rows"].values() if "n" in row)
        text += f"\n\nn = {n}; intervals by patient or group. Flagged: above the threshold "
        text += "that 5 % of clean validation scans exceed; FPR on these very scans. "
        if notes:
            text += f"Feature with the largest share in the fused score: {'; '.join(notes)}. "
        parts.append(text + md.source(result))
    return "\n\n".join(parts)
