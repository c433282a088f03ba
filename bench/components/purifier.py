"""Purifier against filters: perturbation energy removed, denoising, accuracy behind it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.parallel import ParallelBatches, progress
from bench.result_file import ResultFile
from bench.robustness.evaluate import evaluate
from bench.robustness.filters import STRENGTHS, Filter
from bench.summaries import mark_correct, share_by_label
from core import metrics
from core.attacks import paper_attack
from core.diffusion import seeded_noise, to_model, to_pixels
from core.pipeline import MedFedPure
from core.purifier import Purifier
from train.data.dataset import Batch, ScanDataset

HELP = "energy removed, denoising and accuracy, against filters"
NOISE_T = 50
A0_8BIT = paper_attack(eight_bit=True)
Change = Callable[[Tensor, Sequence[int]], Tensor]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--val-limit", "--batch-size")


def run(args: argparse.Namespace) -> None:
    """Measures the purifier."""
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
    """Fills `store` with five rows; the filters' strengths are chosen on validation scans first."""
    chosen = store.row("filters", lambda: choose_strengths(pipeline, validation, batch_size))

    def best(aim: str) -> dict[str, Filter]:
        return {k: known[chosen[aim][k]["strength"]] for k, known in STRENGTHS.items()}

    store.row("energy", lambda: measure_energy(pipeline, test, best("accuracy"), batch_size))
    store.row("denoising", lambda: measure_denoising(pipeline, test, best("psnr"), batch_size))
    found = store.row(
        "accuracy", lambda: measure_accuracy(pipeline, test, best("accuracy"), batch_size)
    )
    store.row("clean", lambda: measure_fidelity(pipeline, test, batch_size))
    removed = store.content["rows"]["energy"]["purifier"]["removed"]
    if removed is not None and removed < 0:
        store.warn("the purifier adds more to the perturbation than it removes")
    plain = found["systems"]["nothing"]
    if found["systems"]["purifier"]["clean"]["accuracy"] < plain["clean"]["accuracy"] - 0.02:
        store.warn("the purifier costs the plain classifier more than 2 points on clean scans")


def choose_strengths(
    pipeline: MedFedPure, validation: ScanDataset, batch_size: int = 32
) -> dict[str, dict[str, Any]]:
    """Returns each filter's best strength, by PSNR at t = 50 and by the plain classifier.

    By the classifier: its mean accuracy on clean scans and A0, or else a filter that blurs every
    tumour away would win.
    """
    chosen: dict[str, dict[str, Any]] = {"psnr": {}, "accuracy": {}}
    for kind, strengths in STRENGTHS.items():
        filters = {str(s): f for s, f in strengths.items()}
        noise = measure_denoising(pipeline, validation, filters, batch_size)["psnr"]
        name = max(filters, key=lambda s: noise[s]["mean"])
        chosen["psnr"][kind] = {"strength": float(name), "validation": noise[name]["mean"]}
        systems = measure_accuracy(pipeline, validation, filters, batch_size)["systems"]
        score = {s: systems[s]["clean"]["accuracy"] + systems[s]["A0"]["accuracy"] for s in filters}
        name = max(filters, key=lambda s: score[s])
        chosen["accuracy"][kind] = {"strength": float(name), "validation": score[name] / 2}
    return {**chosen, "n": len(validation)}


def measure_energy(
    pipeline: MedFedPure, fold: ScanDataset, filters: dict[str, Filter], batch_size: int = 32
) -> dict[str, Any]:
    """Returns the perturbation energy that P removes on A0 scans of the plain classifier.

    `removed` = 1 - |P(x + d) - P(x)|^2 / |d|^2, with the same depth and noise for both.
    `removed_and_faithful` = 1 - |P(x + d) - x|^2 / |d|^2: changes by P itself count too.
    Only flagged scans count for the purifier; sums over scans are divided, not ratios averaged.
    """
    sums: dict[str, list[Tensor]] = {}
    depths: list[Tensor] = []
    for x, y, seeds in progress(fold.batches(batch_size, pipeline.device), "energy"):
        x_adv = A0_8BIT(pipeline.plain_logits, x, y, seeds)
        with torch.no_grad():
            score = pipeline.score(pipeline.detect(x_adv))
            flagged = score > pipeline.tau
            t_star = pipeline.t_star(score, "paper")
            depths.append(t_star[flagged].cpu())
            c = pipeline.purifier.config
            at = {"purifier": t_star, **{f"purifier at t = {t}": t_star.clamp(t, t) for t in
                  sorted({c.t_floor, c.t_min, c.t_max} - {0})}}  # fmt: skip
            for name, t in at.items():
                use = flagged if name == "purifier" else torch.ones_like(flagged)
                pure = pipeline.purify(torch.cat([x_adv, x]), torch.cat([t, t]), seeds * 2)
                _add(sums, name, x[use], x_adv[use], *(p[use] for p in pure.chunk(2)))
            for name, change in filters.items():
                _add(sums, name, x, x_adv, change(x_adv), change(x))
    t = torch.cat(depths).double()
    result: dict[str, Any] = {name: _energy(parts) for name, parts in sums.items()}
    spread = torch.quantile(t, torch.tensor([0.0, 0.5, 1.0]).double()).tolist() if len(t) else None
    return {**result, "n": len(fold), "flagged": len(t), "t_star_min_median_max": spread}


def measure_denoising(
    pipeline: MedFedPure,
    fold: ScanDataset,
    filters: dict[str, Filter],
    batch_size: int = 32,
    t: int = NOISE_T,
) -> dict[str, Any]:
    """Returns PSNR and SSIM after denoising scans noised to step t, at their own brightness."""
    one = Purifier(
        pipeline.purifier.noise_pred,
        pipeline.purifier.diffusion,
        replace(pipeline.purifier.config, noises=1),
    )
    psnr: dict[str, list[Tensor]] = {}
    ssim: dict[str, list[Tensor]] = {}
    for x, _, seeds in progress(fold.batches(batch_size, pipeline.device), f"denoising, t = {t}"):
        steps = torch.full((len(x),), t, device=x.device)
        # the draw that the purifier makes
        noise = seeded_noise((1, *x.shape[1:]), seeds)[:, 0].to(x)
        with torch.no_grad():
            diffusion = pipeline.purifier.diffusion
            x_t = diffusion.q_sample(to_model(x), steps, noise)
            noisy = to_pixels(x_t / diffusion.alpha_bar[t].sqrt())
            outputs = {"noisy": noisy.clamp(0, 1), "purifier": one(x, steps, seeds)}
            outputs |= {name: change(noisy).clamp(0, 1) for name, change in filters.items()}
        for name, out in outputs.items():
            psnr.setdefault(name, []).append(metrics.psnr(out, x).cpu())
            ssim.setdefault(name, []).append(metrics.ssim(out, x).cpu())
    return {"t": t, "n": len(fold), "psnr": _summaries(psnr), "ssim": _summaries(ssim)}


def measure_accuracy(
    pipeline: MedFedPure, fold: ScanDataset, filters: dict[str, Filter], batch_size: int = 32
) -> dict[str, Any]:
    """Returns the plain classifier's accuracy behind each, clean and under its own A0 (8 bits)."""
    t_min = pipeline.purifier.config.t_min
    changes: dict[str, Change] = {
        "nothing": lambda x, _: x,
        "purifier": lambda x, seeds: purify_as_deployed(pipeline, x, seeds),
        f"purifier at t = {t_min} for all": lambda x, seeds: pipeline.purify(
            x, torch.full((len(x),), t_min, device=x.device), seeds
        ),
        **{name: lambda x, _, f=f: f(x) for name, f in filters.items()},
    }

    def attack(scans: Batch) -> list[Tensor]:
        return [scans.x, A0_8BIT(pipeline.plain_logits, *scans)]

    @torch.no_grad()
    def read(scans: Batch, tries: list[Tensor]) -> dict[str, Tensor]:
        pure = {n: [change(x, scans.seeds) for x in tries] for n, change in changes.items()}
        logits = {n: [pipeline.plain_logits(x) for x in xs] for n, xs in pure.items()}
        return {n: torch.stack([mark_correct(n, z, scans.y) for z in logits[n]]) for n in changes}

    lanes = ParallelBatches(pipeline.device, batch_size)
    parts = list(evaluate(attack, read, fold, lanes, "accuracy behind each"))
    right = {n: torch.cat([part[n] for part in parts], 1) for n in changes}
    systems = {
        n: {kind: share_by_label(both[i], fold.labels) for i, kind in enumerate(("clean", "A0"))}
        for n, both in right.items()
    }
    return {"attack": vars(A0_8BIT), "systems": systems}


def measure_fidelity(
    pipeline: MedFedPure, fold: ScanDataset, batch_size: int = 32
) -> dict[str, Any]:
    """Returns PSNR and SSIM of clean scans purified as deployed, and to each depth."""
    c = pipeline.purifier.config
    psnr: dict[str, list[Tensor]] = {}
    ssim: dict[str, list[Tensor]] = {}
    for x, _, seeds in progress(fold.batches(batch_size, pipeline.device), "clean scans"):
        with torch.no_grad():
            outputs = {"as deployed": purify_as_deployed(pipeline, x, seeds)}
            for t in sorted({c.t_floor, c.t_min, c.t_max} - {0}):
                steps = torch.full((len(x),), t, device=x.device)
                outputs[f"t = {t}"] = pipeline.purify(x, steps, seeds)
        for name, out in outputs.items():
            psnr.setdefault(name, []).append(metrics.psnr(out, x).clamp_max(100).cpu())
            ssim.setdefault(name, []).append(metrics.ssim(out, x).cpu())
    return {"n": len(fold), "psnr": _summaries(psnr), "ssim": _summaries(ssim)}


def purify_as_deployed(pipeline: MedFedPure, x: Tensor, seeds: Sequence[int]) -> Tensor:
    """Purifies scans (B, C, H, W) to the depths that their scores ask for, by policy `floor`."""
    return pipeline.purify(x, pipeline.t_star(pipeline.score(pipeline.detect(x)), "floor"), seeds)


def _add(
    sums: dict[str, list[Tensor]], name: str, x: Tensor, x_adv: Tensor, pure: Tensor, base: Tensor
) -> None:
    """Adds energies (B, 3): of the perturbation, of what is left of it, of the distance to x."""
    pairs = ((x_adv, x), (pure, base), (pure, x))
    energies = [(a - b).double().square().flatten(1).sum(1) for a, b in pairs]
    sums.setdefault(name, []).append(torch.stack(energies, 1).cpu())


def _energy(parts: list[Tensor]) -> dict[str, Any]:
    total = torch.cat(parts).sum(0).tolist()
    if not total[0]:
        return {"removed": None, "removed_and_faithful": None, "n": 0}
    removed, faithful = 1 - total[1] / total[0], 1 - total[2] / total[0]
    return {"removed": removed, "removed_and_faithful": faithful, "n": len(torch.cat(parts))}


def _summaries(values: dict[str, list[Tensor]]) -> dict[str, dict[str, float]]:
    joined = {name: torch.cat(parts) for name, parts in values.items()}
    return {
        n: {"mean": float(v.mean()), "sd": float(v.std(correction=0))} for n, v in joined.items()
    }


NOTE = (
    "Perturbation energy removed: 1 - |P(x + d) - P(x)|² / |d|². Against the clean scan: "
    "1 - |P(x + d) - x|² / |d|², where changes by P itself count too and are far larger than an "
    "invisible attack. The purifier on flagged PGD-7 scans of the plain classifier, all others on "
    "all of them. Filters at the strength that is best on validation scans: by PSNR for the column "
    "in dB, by the plain classifier's accuracy for the others."
)


def table(results: md.Results) -> str:
    """Renders the purifier beside the best filters."""
    parts = []
    for protocol, result in md.results_of(results, "purifier", md.PROTOCOLS).items():
        rows = result["rows"]
        energy, noise, behind = rows["energy"], rows["denoising"], rows["accuracy"]["systems"]
        filters = [n for n, f in energy.items() if isinstance(f, dict) and "removed" in f]
        names = dict.fromkeys([*behind, *filters])
        lines = []
        for name in names:
            removed = energy.get(name) or {}
            psnr = noise["psnr"].get({"nothing": "noisy"}.get(name, name), {}).get("mean")
            right = behind.get(name) or {}
            lines.append(
                [
                    name,
                    md.percent(removed.get("removed")),
                    md.percent(removed.get("removed_and_faithful")),
                    md.number(psnr, 2),
                    *(md.accuracy(right.get(row)) for row in ("clean", "A0")),
                    md.by_class((right.get("A0") or {}).get("recall", {})),
                ]
            )
        head = ["", "perturbation energy removed, %", "against the clean scan, %",
                f"PSNR at t = {noise['t']}, dB", "plain classifier behind it: clean, %", "PGD-7, %",
                "tumour / no tumour under PGD-7, %"]  # fmt: skip
        note = f"Energy and PSNR: n = {energy['n']} and {noise['n']}. {NOTE}"
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}\n\n{note} {md.source(result)}")
    return "\n\n".join(parts)
