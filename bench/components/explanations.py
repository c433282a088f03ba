"""Outlined tumours: contrast behind the purifier, Grad-CAM against outlines, occlusion."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.components import lesions
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.summaries import share_by_group
from core.attacks import paper_attack
from core.gradcam import grad_cam
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset
from train.data.masks import load_masks

HELP = "contrast of lesions behind the purifier, Grad-CAM against outlines, occluded tumours"
MIN_CONTRAST = 0.05  # fainter lesions are left out: the ratio would divide by almost nothing
MIN_FALL = 0.1  # of the tumour's probability
QUANTILES = (0.1, 0.5)
ATTACK = paper_attack(eight_bit=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser)


def run(args: argparse.Namespace) -> None:
    """Measures the explanations on outlined tumours."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    test = options.open_fold(args)
    measure(store, system.pipeline, test, load_masks(test, options.root_of(args)))
    store.close()


def measure(
    store: ResultFile, pipeline: MedFedPure, test: ScanDataset, masks: dict[int, Tensor]
) -> None:
    """Fills `store` with three rows.

    Raises:
        ValueError: no test scan has an outline.
    """
    if not masks:
        raise ValueError("no test scan has an outline: br35h/annotations_all.json is needed")
    store.row("lesions", lambda: measure_lesions(pipeline, test, masks))
    store.row("pointing", lambda: measure_pointing(pipeline, test, masks))
    store.row("painting", lambda: measure_occlusion(pipeline, test, masks))


@torch.no_grad()
def measure_lesions(
    pipeline: MedFedPure, test: ScanDataset, masks: dict[int, Tensor]
) -> dict[str, Any]:
    """Returns the contrast that clean tumours keep, and the perturbation energy removed.

    Each scan at the depth of its own adversarial example (A0, 8 bits, on the trained mixture) if
    that is flagged, the same noise for both. Of the perturbation d the share
    1 - |P(x + d) - P(x)|^2 / |d|^2 is gone. The identity keeps all and removes nothing.
    """
    kept, gone, depths, passed = [], [], [], 0
    for row, mask in progress(list(masks.items()), "lesions"):
        x, y, seeds = test.pick([row]).batches(1, pipeline.device)[0]
        before = lesions.measure_contrast(x[0].cpu(), mask)
        if abs(before) < MIN_CONTRAST:
            continue
        x_adv = ATTACK(pipeline.classifier_logits, x, y, seeds)
        score = pipeline.score(pipeline.detect(x_adv))
        if float(score) <= pipeline.tau:
            passed += 1
            continue
        t_star = pipeline.t_star(score)
        pure, attacked = (pipeline.purify(z, t_star, seeds) for z in (x, x_adv))
        kept.append(lesions.measure_contrast(pure[0].cpu(), mask) / before)
        gone.append(1 - _energy(attacked - pure) / _energy(x_adv - x))
        depths.append(int(t_star))
    if not kept:
        raise ValueError(
            f"no outlined lesion has a contrast of {MIN_CONTRAST} and is flagged when attacked"
        )
    return {
        "n": len(kept),
        "not_flagged": passed,
        "contrast_kept": _quantiles(kept),
        "energy_removed": _quantiles(gone),
        "t_star": _quantiles(depths),
    }


def measure_pointing(
    pipeline: MedFedPure, test: ScanDataset, masks: dict[int, Tensor]
) -> dict[str, Any]:
    """Compares Grad-CAM of the mixture with the outlines, for 'tumour', on tumours that it finds.

    Pointing game (Zhang et al. 2018): is the map's highest point in the outline, widened by 3
    pixels? Beside it the share of the map inside the outline, and what both would be if the map
    were even over the brain.
    """
    hits, energies, areas, counted = [], [], [], []
    model = pipeline.classifier.model
    for row, mask in progress(list(masks.items()), "pointing"):
        x, _, _ = test.pick([row]).batches(1, pipeline.device)[0]
        if float(pipeline.classifier_logits(x).exp()[0, 1]) < 0.5:
            continue
        cam = grad_cam(model, x, torch.ones(1, dtype=torch.long, device=x.device)).mixture[0].cpu()
        wide, total = lesions.widen(mask), float(cam.sum())
        counted.append(test.groups[row])
        hits.append(bool(wide.flatten()[int(cam.argmax())]))
        energies.append(float(cam[wide].sum()) / total if total else 0.0)
        brain = (x[0, 0].cpu() > lesions.TISSUE_LEVEL) | wide
        areas.append(float(wide.sum()) / float(brain.sum()))
    if not hits:
        raise ValueError("the mixture finds none of the outlined tumours")
    return {
        "pointing": share_by_group(torch.tensor(hits), counted),
        "energy_inside": sum(energies) / len(energies),
        "by_chance": sum(areas) / len(areas),
        "n": len(hits),
    }


@torch.no_grad()
def measure_occlusion(
    pipeline: MedFedPure, test: ScanDataset, masks: dict[int, Tensor]
) -> dict[str, Any]:
    """Returns how often the tumour's probability falls by `MIN_FALL` when the tumour is occluded.

    The paint is the brain's other side. Elsewhere: a patch of the same shape, painted in the same
    way where no tumour is. Of tumours that the whole system finds, that lie on one side and that
    have such a place.
    """
    falls: dict[str, list[bool]] = {"tumour": [], "elsewhere": []}
    changes: dict[str, list[float]] = {"tumour": [], "elsewhere": []}
    counted: list[int] = []  # near-duplicate groups of those that are painted
    found = across = without_room = 0
    for row, mask in progress(list(masks.items()), "painting"):
        x, _, seeds = test.pick([row]).batches(1, pipeline.device)[0]
        before = float(pipeline.logits(x, seeds).exp()[0, 1])
        if before < 0.5:
            continue
        found += 1
        scan, wide = x[0].cpu(), lesions.widen(mask)
        shift = lesions.find_midline(scan)
        if bool((wide & lesions.mirror(wide, shift)).any()):
            across += 1  # its mirror image is tumour too
            continue
        place = lesions.find_control_patch(scan, wide, shift)
        if place is None:
            without_room += 1
            continue
        counted.append(test.groups[row])
        for name, patch in (("tumour", wide), ("elsewhere", place)):
            changed = lesions.occlude(scan, patch, shift)[None].to(x)
            after = float(pipeline.logits(changed, seeds).exp()[0, 1])
            falls[name].append(before - after >= MIN_FALL)
            changes[name].append(before - after)
    if not falls["tumour"]:
        raise ValueError("no outlined tumour is found that leaves room for a control patch")
    return {
        "fall": MIN_FALL,
        "found": found,
        "across_the_midline": across,
        "without_room": without_room,
        **{
            name: {**share_by_group(torch.tensor(f), counted), "fell_by": _quantiles(changes[name])}
            for name, f in falls.items()
        },
    }


def _energy(delta: Tensor) -> float:
    return float(delta.double().square().sum())


def _quantiles(values: list[float] | list[int]) -> dict[str, float]:
    points = torch.tensor(QUANTILES, dtype=torch.float64)
    low, middle = torch.quantile(torch.tensor(values, dtype=torch.float64), points).tolist()
    return {"tenth": low, "median": middle}


def table(results: md.Results) -> str:
    """Renders all three rows."""
    lines, notes = [], []
    for protocol, result in md.results_of(results, "looks", md.PROTOCOLS).items():
        kept, where, paint = (result["rows"][n] for n in ("lesions", "pointing", "painting"))
        for name, key in (
            ("lesion contrast kept", "contrast_kept"),
            ("perturbation energy removed from the same scans", "energy_removed"),
        ):
            found = kept[key]
            values = f"{md.percent(found['median'])} / {md.percent(found['tenth'])}"
            lines.append([protocol, f"{name}, %, median / 10th percentile", values, str(kept["n"])])
        inside, chance = md.percent(where["energy_inside"]), md.percent(where["by_chance"])
        pointing = f"{md.accuracy(where['pointing'])} ({chance})"
        lines += [
            [protocol, "Grad-CAM's highest point in the outline (by chance), %", pointing, ""],
            [protocol, "its energy in the outline (by chance), %", f"{inside} ({chance})",
             str(where["n"])],
        ]  # fmt: skip
        for name, title in (
            ("tumour", "tumour occluded by the other side: the probability falls, %"),
            ("elsewhere", "control patch occluded elsewhere: it falls, %"),
        ):
            lines.append([protocol, title, md.accuracy(paint[name]), str(paint[name]["n"])])
        notes.append(
            f"{protocol}: of {paint['found']} tumours that are found, "
            f"{paint['across_the_midline']} reach across the midline, where the other side is "
            f"tumour too, and {paint['without_room']} leave no room for a control patch: none of "
            "these is occluded."
        )
    head = ["protocol", "outlined tumours of the test fold", "", "n"]
    return (
        f"{md.table(head, lines)}\n\nA fall is one of .1 or more. By chance: the outline's share "
        f"of the brain. {' '.join(notes)} {md.source(result)}"
    )
