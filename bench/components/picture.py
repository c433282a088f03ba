"""The purified picture as a picture: what it keeps of tumours and edges, what it removes.

By depth, beside filters by strength, on scans whose tumour is outlined. Of the perturbation d of an
adversarial example the share 1 - |P(x + d) - P(x)|^2 / |d|^2 is gone.
"""

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
from bench.components.lesions import MIN_CONTRAST, measure_contrast
from bench.explanations.outlined import Outlined, collect_outlined
from bench.intervals import draw_share, draw_units, find_interval
from bench.parallel import progress
from bench.robustness.filters import STRENGTHS
from core import metrics
from core.attacks import paper_attack
from core.pipeline import MedFedPure

HELP = "the purified picture by depth, and filters: tumours and edges kept, perturbation removed"
DEPTHS = (10, 20, 35, 50, 75, 100, 140)
FILTERS = ("gaussian", "median")  # JPEG adds to a perturbation
MEASURES = ("contrast_kept", "removed", "gmsd", "psnr")
ATTACK = paper_attack(eight_bit=True)
GMS_CONSTANT = 170 / 255**2
Change = Callable[[Tensor, Sequence[int]], Tensor]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--fold")
    parser.add_argument(
        "--each", type=int, default=150, help="largest number of scans of a source, evenly spaced"
    )


def run(args: argparse.Namespace) -> None:
    """Measures all depths and strengths on the same scans."""
    system = options.open_system(args)
    store = options.open_results(args, system, settings={**options.settings_of(args)})
    some = collect_outlined(options.open_fold(args), options.root_of(args))
    some = some.thin_by_source(args.each)
    changes = list_changes(system.pipeline)
    store.row("pictures", lambda: measure_pictures(system.pipeline, some, changes))
    deployed = name_depth(system.pipeline.purifier.config.t_picture)
    rows = store.content["rows"]["pictures"]
    store.row("peer", lambda: compare_with_peer(rows, deployed), again=True)
    store.close()


def name_depth(t: int) -> str:
    """Return the name of a purification to depth t."""
    return f"purifier, t = {t}"


def list_changes(pipeline: MedFedPure) -> dict[str, Change]:
    """Return the purifier at each depth, and each filter at each strength, by name."""

    def purify(x: Tensor, seeds: Sequence[int], t: int) -> Tensor:
        return pipeline.purify(x, torch.full((len(x),), t, device=x.device), seeds)

    depths = sorted({*DEPTHS, pipeline.purifier.config.t_picture})
    changes: dict[str, Change] = {name_depth(t): partial(purify, t=t) for t in depths}
    for kind in FILTERS:
        for strength, change in STRENGTHS[kind].items():
            changes[f"{kind}, {strength:g}"] = lambda x, _, f=change: f(x)
    return changes


@torch.no_grad()
def measure_pictures(
    pipeline: MedFedPure, outlined: Outlined, changes: Mapping[str, Change]
) -> dict[str, Any]:
    """Measure every change of each clean scan and of its adversarial example (A0, 8 bits).

    Tumours of next to no contrast are left out: the share that is kept would divide by it.
    """
    found: dict[str, dict[str, list[float]]] = {n: {m: [] for m in MEASURES} for n in changes}
    units: list[int] = []
    for row, mask in progress(list(outlined.masks.items()), "pictures"):
        x, y, seeds = outlined.fold.pick([row]).batches(1, pipeline.device)[0]
        contrast = measure_contrast(x[0].cpu(), mask)
        if abs(contrast) < MIN_CONTRAST:
            continue
        units.append(outlined.fold.groups[row])
        x_adv = ATTACK(pipeline.classifier_logits, x, y, seeds)
        for name, change in changes.items():
            clean, attacked = change(torch.cat([x, x_adv]), [*seeds, *seeds]).split(1)
            kept = measure_contrast(clean[0].cpu(), mask) / contrast
            removed = 1 - _energy(attacked - clean) / _energy(x_adv - x)
            figures = kept, removed, float(gmsd(attacked, x)), float(metrics.psnr(attacked, x))
            for measure, value in zip(MEASURES, figures, strict=True):
                found[name][measure].append(value)
    return {"n": len(units), "units": units, "attack": vars(ATTACK), "changes": found}


def gmsd(x: Tensor, reference: Tensor) -> Tensor:
    """Return the gradient magnitude similarity deviation (B,), 0 for equal pictures (B, 1, H, W).

    Xue et al. (2014): Prewitt gradients of pictures in [0, 1] averaged over 2 x 2 pixels; the
    standard deviation of their magnitudes' similarity. Blurred and grainy edges both raise it.
    """
    across = torch.tensor([[1.0, 0.0, -1.0]] * 3).to(x) / 3
    kernels = torch.stack([across, across.T])[:, None]

    def measure_edges(z: Tensor) -> Tensor:
        return F.conv2d(F.avg_pool2d(z, 2), kernels, padding=1).square().sum(1).sqrt()

    a, b = measure_edges(x), measure_edges(reference)
    similarity = (2 * a * b + GMS_CONSTANT) / (a.square() + b.square() + GMS_CONSTANT)
    return similarity.flatten(1).std(1, correction=0)


def compare_with_peer(row: dict[str, Any], deployed: str) -> dict[str, Any]:
    """Compare the picture that is shown with the best filter that removes as much.

    Of each kind of filter the weakest strength is taken whose median share removed is as large, and
    of these the one of the lowest median GMSD.
    """
    changes, times = row["changes"], draw_units(row["units"])

    def middle(name: str, measure: str) -> float:
        return float(torch.tensor(changes[name][measure]).median())

    peers = []
    for kind in FILTERS:
        names = [n for n in changes if n.startswith(kind)]
        enough = [n for n in names if middle(n, "removed") >= middle(deployed, "removed")]
        peers += enough[:1]
    if not peers:
        return {"deployed": deployed, "peer": None}
    peer = min(peers, key=lambda n: middle(n, "gmsd"))
    own, other = (torch.tensor(changes[n]["gmsd"]) for n in (deployed, peer))
    sharper = own < other
    interval = find_interval(draw_share(times, sharper, torch.ones_like(sharper)))
    return {
        "deployed": deployed,
        "peer": peer,
        "sharper": {"k": int(sharper.sum()), "n": len(sharper), "interval": interval},
    }


def _energy(delta: Tensor) -> float:
    return float(delta.double().square().sum())


def table(results: md.Results) -> str:
    """Renders every depth and strength, and the comparison."""
    parts = []
    for protocol, result in md.results_of(results, "picture", md.PROTOCOLS).items():
        row, peer = result["rows"]["pictures"], result["rows"]["peer"]
        lines = []
        for name, figures in row["changes"].items():
            values = {m: torch.tensor(figures[m], dtype=torch.float64) for m in MEASURES}
            kept, tenth = values["contrast_kept"].quantile(torch.tensor([0.5, 0.1]).double())
            lines.append([
                f"**{name}** (shown)" if name == peer["deployed"] else name,
                f"{md.percent(float(kept))} / {md.percent(float(tenth))}",
                md.percent(float(values["removed"].median())),
                md.number(float(values["gmsd"].median()), 3),
                md.number(float(values["psnr"].median()), 1),
            ])  # fmt: skip
        head = ["", "lesion contrast kept, %, median / 10th percentile",
                "perturbation energy removed, %", "GMSD to the clean scan", "PSNR, dB"]  # fmt: skip
        note = (
            f"n = {row['n']} outlined tumours; medians. Contrast: of clean scans. The rest: PGD-7 "
            f"on the trained mixture, 8 bits. GMSD: deviation of edges, 0 for equal pictures."
        )
        if peer["peer"]:
            sharper = peer["sharper"]
            note += (
                f" Of filters that remove as much, the sharpest is {peer['peer']}; the picture "
                f"that is shown has a lower GMSD on {sharper['k']} of {sharper['n']} scans."
            )
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}\n\n{note} {md.source(result)}")
    return "\n\n".join(parts)
