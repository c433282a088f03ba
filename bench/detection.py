"""What the detector sees: every score and feature, against attacks and harmless changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.attacks.apgd import RESTART
from bench.filters import jpeg
from bench.fold import Fold
from bench.progress import progress
from bench.shapes import histogram, roc
from bench.store import Store
from bench.systems import Bench
from core import metrics
from core.attack import PGD
from core.detector import SCORES
from core.diffusion import seeded_noise
from core.features import FEATURES
from core.pipeline import MedFedPure
from core.residual import blur

CURVE = (0.004, 0.008, 0.015, 0.031)
HEADLINE = 0.015
SURFACES = ("plain", "trained")
BENIGN: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "noise sigma .01": lambda x, seeds: x + 0.01 * seeded_noise(x.shape[1:], seeds).to(x),
    "3 x 3 blur": lambda x, _: blur(x),
    "JPEG quality 75": lambda x, _: jpeg(x, 75),
    "gamma 1.2": lambda x, _: x.pow(1.2),
}


def run(store: Store, pipeline: MedFedPure, test: Fold, batch_size: int = 32) -> None:
    """Fills `store`: clean scans, harmless changes, then a row per attacked classifier and eps."""
    clean = measured(pipeline, test, lambda x, y, seeds: x, "clean", batch_size)
    store.row("clean", lambda: {"n": len(test), **false_alarms(pipeline, clean)})
    for name, change in BENIGN.items():

        def changed(
            change: Callable[[Tensor, list[int]], Tensor] = change, name: str = name
        ) -> Any:
            found = measured(
                pipeline, test, lambda x, y, s: eight_bit(change(x, s)), name, batch_size
            )
            return {"n": len(test), **false_alarms(pipeline, found)}

        store.row(f"benign: {name}", changed)
    bench = Bench(pipeline)
    for surface in SURFACES:
        for eps in sorted(CURVE, key=lambda e: e != HEADLINE):
            attack = PGD(eps=eps, alpha=eps / 5, eight_bit=True)

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


def false_alarms(pipeline: MedFedPure, found: dict[str, Tensor]) -> dict[str, Any]:
    """Share of these scans above each score's stored tau (5 % of validation scans were).

    Beside it tau itself, and how the scores are spread.
    """
    return {
        "flagged": {
            name: metrics_share(found[name] > pipeline.detector.tau(name)) for name in SCORES
        },
        "deciding": pipeline.config.detector.score,
        "tau": {name: pipeline.detector.tau(name) for name in SCORES},
        "histogram": {name: histogram(found[name], name) for name in SCORES},
    }


def detection(
    pipeline: MedFedPure,
    clean: dict[str, Tensor],
    attacked: dict[str, Tensor],
    groups: Sequence[int],
) -> dict[str, Any]:
    """AUROC and detection rates of every score, attacked scans against the same scans clean.

    `tpr_at_5` is the share found above the score that 5 % of these very scans exceed when clean;
    `flagged` is the share above the stored tau.
    """
    scores = {}
    for name, negative in clean.items():
        score = torch.cat([negative, attacked[name]])
        y = torch.cat([torch.zeros(len(negative)), torch.ones(len(attacked[name]))]).long()
        scores[name] = {
            "auroc": metrics.auroc(score, y),
            "tpr_at_5": metrics.tpr_at_fpr(score, y, 0.05),
            "tpr_at_1": metrics.tpr_at_fpr(score, y, 0.01),
        }
        if name in SCORES:
            scores[name]["interval"] = _group_bootstrap(negative, attacked[name], groups)
            scores[name]["roc"] = roc(negative, attacked[name])
    return {"scores": scores, **false_alarms(pipeline, attacked)}


def metrics_share(flags: Tensor) -> dict[str, Any]:
    """k, n and the share with Wilson's interval."""
    k, n = int(flags.sum()), len(flags)
    return {"k": k, "n": n, "share": k / n, "interval": metrics.wilson_interval(k, n)}


def _group_bootstrap(
    negative: Tensor, positive: Tensor, groups: Sequence[int], draws: int = 500
) -> tuple[float, float]:
    """95 % interval of the AUROC when groups are redrawn, each scan with its attacked twin."""
    generator = torch.Generator().manual_seed(RESTART)
    names, index = torch.unique(torch.as_tensor(list(groups)), return_inverse=True)
    members = [(index == k).nonzero()[:, 0] for k in range(len(names))]
    values = []
    for _ in range(draws):
        picked = torch.randint(len(members), (len(members),), generator=generator)
        rows = torch.cat([members[k] for k in picked.tolist()])
        y = torch.arange(2).repeat_interleave(len(rows))
        values.append(metrics.auroc(torch.cat([negative[rows], positive[rows]]), y))
    low, high = torch.quantile(torch.tensor(values), torch.tensor([0.025, 0.975])).tolist()
    return low, high
