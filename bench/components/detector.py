"""What the detector sees: every score and feature, against attacks and harmless changes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.data import Fold
from bench.progress import progress
from bench.result_file import ResultFile
from bench.robustness.filters import jpeg
from bench.robustness.old_systems import Bench
from bench.summaries import histogram, members, roc, separation, share_by_group
from core import load
from core.attacks import PGD, paper_attack
from core.detector import SCORES, cut_off
from core.diffusion import seeded_noise
from core.features import FEATURES
from core.pipeline import MedFedPure
from core.steganalysis import blur
from train.calibration.fusion import carried

HELP = "AUROC and false-positive rates of every detector score"
CURVE = (0.004, 0.008, 0.015, 0.031)
HEADLINE = 0.015
SURFACES = ("plain", "trained")
BENIGN: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "noise sigma .01": lambda x, seeds: x + 0.01 * seeded_noise(x.shape[1:], seeds).to(x),
    "3 x 3 blur": lambda x, _: blur(x),
    "JPEG quality 75": lambda x, _: jpeg(x, 75),
    "gamma 1.2": lambda x, _: x.pow(1.2),
    "bias field of 20 %": lambda x, seeds: biased(x, seeds),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser)
    options.add_batch_size(parser)


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
    test: Fold,
    batch_size: int = 32,
    hospitals: Mapping[int, Callable[[], MedFedPure]] | None = None,
) -> None:
    """Fills `store`: clean scans, harmless changes, then a row per attacked classifier and eps.

    `hospitals` loads each one's system: what raises an alarm is its own.
    """
    clean = measured(pipeline, test, lambda x, y, seeds: x, "clean", batch_size)
    store.row(
        "clean",
        lambda: {"n": len(test), **false_alarms(pipeline, clean, test.groups, test.sources)},
    )
    for number, opened in (hospitals or {}).items():

        def own(
            opened: Callable[[], MedFedPure] = opened, name: str = f"hospital {number}"
        ) -> dict[str, Any]:
            system = opened()
            found = measured(system, test, lambda x, y, seeds: x, name, batch_size)
            return {"n": len(test), "flagged": flagged(system, found, test.groups)}

        store.row(f"clean, hospital {number}", own)
    for name, change in BENIGN.items():

        def changed(
            change: Callable[[Tensor, list[int]], Tensor] = change, name: str = name
        ) -> Any:
            found = measured(
                pipeline, test, lambda x, y, s: eight_bit(change(x, s)), name, batch_size
            )
            return {"n": len(test), **false_alarms(pipeline, found, test.groups)}

        store.row(f"benign: {name}", changed)
    bench = Bench(pipeline)
    for surface in SURFACES:
        for eps in sorted(CURVE, key=lambda e: e != HEADLINE):
            attack = paper_attack(eps, eight_bit=True)

            def attacked(surface: str = surface, attack: PGD = attack) -> dict[str, Any]:
                found = measured(
                    pipeline,
                    test,
                    lambda x, y, seeds: attack(lambda z: bench.classify(surface, z), x, y, seeds),
                    f"{surface}, eps {attack.eps}",
                    batch_size,
                )
                figures = detection(pipeline, clean, found, test.groups)
                return {"attack": vars(attack), "n": len(test), **figures}

            store.row(f"{surface}, eps {eps}", attacked)
    for surface in SURFACES:
        row = store.content["rows"][f"{surface}, eps {HEADLINE}"]
        if row["scores"]["fused"]["auroc"] < row["scores"]["paper"]["auroc"]:
            store.warn(f"against {surface}, the fused score is worse than the paper's")


def biased(x: Tensor, seeds: Sequence[int], depth: float = 0.2) -> Tensor:
    """Scans (B, 1, H, W) brightened and darkened smoothly by up to `depth`, as a coil does."""
    coarse = seeded_noise((1, 3, 3), seeds).to(x)
    field = F.interpolate(coarse, size=x.shape[2:], mode="bicubic", align_corners=True)
    return x * (1 + depth * field / field.abs().amax((1, 2, 3), keepdim=True))


def eight_bit(x: Tensor) -> Tensor:
    """What a file holds: rounded to 256 levels."""
    return (x.clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def scored(pipeline: MedFedPure, x: Tensor) -> dict[str, Tensor]:
    """Every named score and single feature of scans (B, 1, H, W), each (B,)."""
    found = pipeline.detect(x)
    features = {f"feature {n}": found.features[:, i] for i, n in enumerate(FEATURES)}
    return {**found.scores, **features}


def measured(
    pipeline: MedFedPure,
    fold: Fold,
    change: Callable[[Tensor, Tensor, list[int]], Tensor],
    label: str,
    batch_size: int,
) -> dict[str, Tensor]:
    """Scores of the fold's scans after `change(x, y, seeds)`, on the CPU."""
    parts = []
    for lazy in progress(fold.batches(batch_size, pipeline.device), label):
        x, y, seeds = lazy()
        parts.append(scored(pipeline, change(x, y, seeds)))
    return {name: torch.cat([p[name] for p in parts]).cpu() for name in parts[0]}


def false_alarms(
    pipeline: MedFedPure,
    found: dict[str, Tensor],
    groups: Sequence[int],
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Share of these scans above each score's stored tau (5 % of validation scans were).

    Beside it tau itself, and how the scores are spread; the shares by source where given.
    """
    places = {}
    for place, rows in members(sources).items():
        part = {name: found[name][rows] for name in SCORES}
        places[place] = {"flagged": flagged(pipeline, part, [groups[i] for i in rows])}
    return {
        **({"sources": places} if places else {}),
        "flagged": flagged(pipeline, found, groups),
        "deciding": pipeline.config.detector.score,
        "tau": {name: pipeline.detector.tau(name) for name in SCORES},
        "histogram": {name: histogram(found[name], name) for name in SCORES},
    }


def flagged(system: MedFedPure, found: dict[str, Tensor], groups: Sequence[int]) -> dict[str, Any]:
    """Share of scans above each score's stored tau."""
    return {
        name: share_by_group(found[name] > system.detector.tau(name), groups) for name in SCORES
    }


def detection(
    pipeline: MedFedPure,
    clean: dict[str, Tensor],
    attacked: dict[str, Tensor],
    groups: Sequence[int],
) -> dict[str, Any]:
    """AUROC and detection rates of every score, attacked scans against the same scans clean.

    `carried` is what each feature adds to their distance in the fused score; `flagged` is the share
    above the stored tau.
    """
    scores = {name: separation(part, attacked[name], groups) for name, part in clean.items()}
    for name in SCORES:
        scores[name]["roc"] = roc(clean[name], attacked[name])
    share = carried(
        pipeline.detector.weight.cpu(), *(_standardised(pipeline, f) for f in (clean, attacked))
    )
    by_name = dict(zip(FEATURES, share.tolist(), strict=True))
    return {"scores": scores, "carried": by_name, **false_alarms(pipeline, attacked, groups)}


def _standardised(pipeline: MedFedPure, found: dict[str, Tensor]) -> Tensor:
    """Features (N, F) as the fused score adds them up."""
    detector = pipeline.detector
    features = torch.stack([found[f"feature {name}"] for name in FEATURES], 1)
    return cut_off((features - detector.centre.cpu()) / detector.spread.cpu())


def table(results: md.Results) -> str:
    """AUROC and detection rates of the named scores, false alarms under harmless change."""
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
                blocks = {
                    name: row,
                    **{f"{name}, {k}": b for k, b in row.get("sources", {}).items()},
                }
                for label, block in blocks.items():
                    shares = (block["flagged"][s]["accuracy"] for s in ("paper", "fused"))
                    alarms.append([label, *map(md.percent, shares)])
        head = ["attack on", "score", "AUROC", "flagged at τ, %",
                "found where 5 % of the clean twins raise an alarm, %", "where 1 %, %"]  # fmt: skip
        text = f"**{protocol}**\n\n{md.table(head, attacked)}"
        text += f"\n\n{md.table(['scans', 'paper: flagged, %', 'fused: flagged, %'], alarms)}"
        n = next(row["n"] for row in result["rows"].values() if "n" in row)
        text += f"\n\nn = {n}; intervals by near-duplicate group. "
        if notes:
            text += f"What carries most of the fused score's distance: {'; '.join(notes)}. "
        parts.append(text + md.source(result))
    return "\n\n".join(parts)
