"""The command `explanations`: maps against tumour masks, clean, under APGD, and attacked alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import options
from bench.explanations.deletion import measure_deletion
from bench.explanations.figures import find_level, summarize_maps
from bench.explanations.map_attack import MapAttack, look_at_map
from bench.explanations.maps import GRAD_CAM, TUMOUR_MAP, DrawMaps, find_maps
from bench.explanations.measures import Measures, list_levels, measure_map
from bench.explanations.outlined import Outlined, collect_outlined
from bench.explanations.paired import compare_weights
from bench.explanations.tables import APGD_KEY, CLEAN_KEY, MAP_KEY, TABLES
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.summaries import group_rows
from bench.unseen.figures import average_balanced_accuracy, measure_block
from bench.unseen.sizes import LIMITS
from core.attacks import APGD
from core.attacks.threat_models import PAPER_EPS
from core.classifier import Calibrated
from core.pipeline import MedFedPure

HELP = (
    "tumour maps and Grad-CAM against tumour masks, clean and attacked; deletion of what they mark"
)
NO_MAP = "the weights make no tumour map: Grad-CAM alone is measured"
Figures = dict[str, Any]

__all__ = ["HELP", "TABLES", "add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size", "--val-limit", "--fold")
    parser.set_defaults(val_limit=600)
    add = parser.add_argument
    add("--attacked", type=int, default=150,
        help="largest number of scans of each source that are attacked, evenly spaced; their "
        "regions are deleted as well")  # fmt: skip
    add("--steps", type=int, default=50, help="steps of each attack")
    add("--against", type=Path, metavar="WEIGHTS",
        help="other weights of the same split: paired test of the worst case")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Measures the explanations of weights on the test fold of the split that trained them."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    root = options.root_of(args)
    test = collect_outlined(options.open_fold(args), root)
    validation = collect_outlined(options.open_validation(args), root)
    measure(store, system.pipeline, test, validation, args.attacked, args.steps, args.batch_size)
    if args.against:
        other = options.open_system(argparse.Namespace(**{**vars(args), "weights": args.against}))
        pair = (system.pipeline.classifier, other.pipeline.classifier)
        some = test.thin_by_source(args.attacked)
        store.row(
            "against",
            lambda: compare_weights(pair, some, args.steps, args.batch_size),
            against=other.identity["weights"],
        )
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: Outlined,
    validation: Outlined,
    attacked: int,
    steps: int = 50,
    batch_size: int = 32,
) -> None:
    """Fills `store`: the maps' levels, their figures and deletion by attack.

    Args:
        store: the result file.
        pipeline: the system; its mixture is explained, without the purifier in front.
        test: the scans that are measured.
        validation: the scans on which the levels are chosen.
        attacked: largest number of scans of a source that are attacked, and deleted from.
        steps: of each attack.
        batch_size: scans at a time.

    Raises:
        ValueError: no test scan has an outline.
    """
    if not test.masks:
        raise ValueError("no test scan has an outline: the data folder holds no tumour masks")
    classifier, device = pipeline.classifier, pipeline.device
    maps = find_maps(classifier)
    if TUMOUR_MAP not in maps:
        store.warn(NO_MAP)
    some = test.thin_by_source(attacked)

    @cache  # a row of figures and one of deletion show the same scans
    def show(key: str) -> Tensor:
        return show_scans(classifier, some, key, steps, batch_size, device)

    chosen = store.row(
        "levels", lambda: {"maps": find_levels(maps, validation, batch_size, device)}
    )
    levels = {name: found["level"] for name, found in chosen["maps"].items()}
    marking = {name: (draw, levels[name]) for name, draw in maps.items()}

    def read(data: Outlined, scans: Callable[[], Tensor], key: str) -> Figures:
        attack = {} if key == CLEAN_KEY else {"eps": PAPER_EPS, "steps": steps}
        return {
            "attack": attack,
            "n": len(data.fold),
            "size_limits": LIMITS,
            **read_maps(classifier, marking, data, scans(), batch_size, device),
        }

    def is_tumour(x: Tensor) -> Tensor:
        with torch.no_grad():
            return classifier(x).argmax(1) == 1

    keys = [CLEAN_KEY, APGD_KEY, *([MAP_KEY] if TUMOUR_MAP in maps else [])]
    store.row(CLEAN_KEY, lambda: read(test, lambda: test.scans, CLEAN_KEY))
    for key in keys:
        if key != CLEAN_KEY:
            store.row(key, lambda key=key: read(some, lambda: show(key), key))
        store.row(
            f"deletion: {key}",
            lambda key=key: measure_deletion(
                is_tumour, marking, some.fold, show(key), some.masks, device
            ),
        )


def show_scans(
    classifier: Calibrated,
    data: Outlined,
    key: str,
    steps: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Return the scans (N, 1, H, W) as an attack shows them, on the CPU."""
    if key == CLEAN_KEY:
        return data.scans
    shown, batches = [], data.fold.batches(batch_size, device)
    for i in progress(range(len(batches)), key):
        x, y, seeds = batches[i]
        if key == APGD_KEY:
            x_adv = APGD(PAPER_EPS, steps)(classifier, x, y, seeds)
        else:
            masks = data.stack_masks(i * batch_size, len(x)).to(device)
            x_adv = MapAttack(PAPER_EPS, steps)(look_at_map(classifier, x, masks), x, seeds)
        shown.append(x_adv.cpu())
    return torch.cat(shown)


def find_levels(
    maps: dict[str, DrawMaps], data: Outlined, batch_size: int, device: torch.device
) -> Figures:
    """Find the level of each map on clean validation scans."""
    tops = {TUMOUR_MAP: 1.0}  # a probability
    if GRAD_CAM in maps:
        batches = data.fold.batches(batch_size, device)
        highest = [float(maps[GRAD_CAM](x).cells.max()) for x, _, _ in progress(batches, "levels")]
        tops[GRAD_CAM] = max(highest)
    found = {}
    for name, draw in maps.items():
        levels = list_levels(tops[name])
        measures = measure_scans(draw, levels, data, data.scans, batch_size, device)
        found[name] = find_level(measures, data.facts, levels)
    return found


def read_maps(
    classifier: Calibrated,
    maps: dict[str, tuple[DrawMaps, float]],
    data: Outlined,
    scans: Tensor,
    batch_size: int,
    device: torch.device,
) -> Figures:
    """Compute the figures of every map and of the mixture's answers on scans (N, 1, H, W)."""
    found: Figures = {}
    for name, (draw, level) in maps.items():
        levels = torch.tensor([level], dtype=torch.float64)
        measures = measure_scans(draw, levels, data, scans, batch_size, device)
        found[name] = summarize_maps(measures, data.facts, level)
    with torch.no_grad():
        logits = torch.cat([classifier(x.to(device)).cpu() for x in scans.split(batch_size)])
    odds, facts = (logits[:, 1] - logits[:, 0]).double(), data.facts
    answers = {
        source: measure_block(odds[rows], facts.y[rows], [facts.units[i] for i in rows])
        for source, rows in group_rows(facts.sources).items()
    }
    mean = average_balanced_accuracy(odds, facts)
    return {"maps": found, "answers": {"sources": answers, "mean_balanced": mean}}


def measure_scans(
    draw: DrawMaps,
    levels: Tensor,
    data: Outlined,
    scans: Tensor,
    batch_size: int,
    device: torch.device,
) -> Measures:
    """Measure one kind of map on scans (N, 1, H, W), which may be attacked; heads are the clean."""
    parts, clean = [], data.scans
    for start in progress(range(0, len(scans), batch_size), "maps"):
        drawn = draw(scans[start : start + batch_size].to(device))
        for i in range(len(drawn.cells)):
            row = start + i
            mask = data.masks.get(row)
            parts.append(measure_map(drawn.select(i), clean[row], mask, levels))
    return Measures.join(parts)
