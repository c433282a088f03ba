"""Deletion of what a map marks: does the answer go with it, and stay when another place goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.components.lesions import TISSUE_LEVEL, widen
from bench.explanations.inpainting import find_control_region, inpaint
from bench.explanations.maps import DrawMaps
from bench.intervals import draw_mean, draw_units
from bench.parallel import progress
from bench.summaries import group_rows
from bench.unseen.figures import find_known_interval, share_by_unit
from train.data.dataset import ScanDataset

Figures = dict[str, Any]
MAX_MARKED = 0.5  # of the head: a map that marks more of it points at nothing
MASK, MARKED, ROOMY, CONTROL = "mask", "marked", "marked, with room", "control"


@dataclass
class Turned:
    """Found tumours by source and unit: did the answer turn when a region was removed."""

    sources: list[str] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    turned: list[bool] = field(default_factory=list)

    def add(self, source: str, unit: int, turned: bool) -> None:
        """Add one tumour."""
        self.sources.append(source)
        self.units.append(unit)
        self.turned.append(turned)

    def summarize(self) -> Figures:
        """Compute the share of each source, and the mean of the sources."""
        parts = group_rows(self.sources)
        if not parts:
            return {"sources": {}}
        turned, times = torch.tensor(self.turned), draw_units(self.units)
        every = torch.ones(len(turned), dtype=torch.bool)
        found = {
            source: share_by_unit(turned[rows], [self.units[i] for i in rows])
            for source, rows in parts.items()
        }
        drawn = [draw_mean(times[:, rows], turned[rows], every[rows]) for rows in parts.values()]
        return {
            "sources": found,
            "mean": {
                "value": sum(f["value"] for f in found.values()) / len(found),
                "interval": find_known_interval(torch.stack(drawn).mean(0)),
            },
        }


def measure_deletion(
    is_tumour: Callable[[Tensor], Tensor],
    maps: dict[str, tuple[DrawMaps, float]],
    fold: ScanDataset,
    scans: Tensor,
    masks: dict[int, Tensor],
    device: torch.device,
) -> Figures:
    """Measure how often 'tumour' turns to 'no tumour' when a region of a found tumour is removed.

    Removed is the mask; what a map marks; and the same shape elsewhere in the head, where neither
    the tumour nor a mark is. All are widened by `MARGIN` pixels. A tumour in which a map marks
    nothing, or more than `MAX_MARKED` of the head, counts as not turned.

    Args:
        is_tumour: answers (B,) bool to scans (B, 1, H, W).
        maps: how a map is drawn, and the level from which it marks, by name.
        fold: the scans' facts.
        scans: (N, 1, H, W) the scans as they are shown, attacked or not.
        masks: (H, W) bool, by row.
        device: the device of the networks.
    """
    mask_turned = Turned()
    found = {name: {key: Turned() for key in (MARKED, ROOMY, CONTROL)} for name in maps}
    counts = {name: {"nothing": 0, "too_much": 0, "without_room": 0} for name in maps}
    total = 0
    for row, mask in progress(list(masks.items()), "deletion"):
        x = scans[row : row + 1].to(device)
        if not bool(is_tumour(x)):
            continue
        total += 1
        scan, wide = scans[row].cpu(), widen(mask)
        head = (scan[0] > TISSUE_LEVEL) | mask
        regions, keys = [wide], [mask_turned]
        place = (fold.sources[row], fold.groups[row])
        for name, (draw, level) in maps.items():
            marked = draw(x).pixels[0].cpu() > level
            region, own = widen(marked), found[name]
            share = float(marked.sum() / head.sum())
            if not 0 < share <= MAX_MARKED:
                counts[name]["too_much" if share else "nothing"] += 1
                own[MARKED].add(*place, False)
                continue
            regions.append(region)
            keys.append(own[MARKED])
            control = find_control_region(scan, region, region | wide)
            if control is None:
                counts[name]["without_room"] += 1
                continue
            regions += [region, control]
            keys += [own[ROOMY], own[CONTROL]]
        turned = _remove_all(is_tumour, scan, regions, fold.seeds[row], device)
        for key, gone in zip(keys, turned, strict=True):
            key.add(*place, gone)
    return {
        "found": total,
        MASK: mask_turned.summarize(),
        "maps": {
            name: {**counts[name], **{key: own.summarize() for key, own in found[name].items()}}
            for name in maps
        },
    }


def _remove_all(
    is_tumour: Callable[[Tensor], Tensor],
    scan: Tensor,
    regions: Sequence[Tensor],
    seed: int,
    device: torch.device,
) -> list[bool]:
    """Return whether the answer turns, for each region."""
    changed = torch.stack([inpaint(scan, region, seed) for region in regions])
    return [not answer for answer in is_tumour(changed.to(device)).tolist()]
