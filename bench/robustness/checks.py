"""Sanity checks for gradient masking (Carlini et al. 2019), of systems and of their detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.robustness.attacks import (
    A0,
    CLASSIFIER,
    CLEAN,
    RANDOM_NOISE,
    Attack,
    Attacker,
    as_logits,
    bfloat16_logits,
    random_corner,
    view_detector,
)
from bench.robustness.evaluate import measure_readings, read_adversarial
from bench.robustness.systems import System
from core import metrics
from core.attacks import APGD, PGD, DetectorAwarePGD, Square
from core.attacks.base import gradient, margin, to_eight_bit
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset, space_evenly

LARGE_EPS, LARGE_EPS_STEPS = 0.25, 10  # an attack that no scan survives
MAX_ZERO_SHARE = 0.01
MIN_GRADIENT_COSINE = 0.7  # of the gradient in the attacks' precision and in full
FEW_STEPS = 5  # of APGD, and five times as many
FD_STEP = 2e-4  # of the finite difference along the gradient's sign, in [0, 1]
SCORE_FD_STEP = 5e-6  # the score is curved: a longer step leaves its gradient
SUM_TOLERANCE = 5e-3  # of sums of probabilities in low precision
SLOPES = (0.5, 2.0)  # of the measured rise against the promised one, median over scans
MISREAD_MARGIN = 1e6
SCORE_STEPS, SCORE_QUERIES = 30, 150  # with the gradient, and without
CHECKED_SCANS = 32
SLACK = 0.01  # one percentage point of accuracy

ValueFn = Callable[[Tensor], Tensor]  # of scans (B, C, H, W), (B,)


@torch.no_grad()
def check_system(system: System, fold: ScanDataset, device: torch.device, limit: int = 8) -> None:
    """Refuse systems that attacks cannot follow, tried on a few scans of each class.

    Raises:
        ValueError: outputs that are not numbers, probabilities in place of logits, one class, or
            one answer for all scans.
    """
    kinds = [(fold.labels == label).nonzero()[:, 0].tolist() for label in (0, 1)]
    some = fold.pick([rows[i] for rows in kinds for i in space_evenly(len(rows), limit)])
    x, _, seeds = some.batches(len(some), device)[0]
    logits = system.logits(x, seeds)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"{system.name} returns {tuple(logits.shape)}, not a logit for each class")
    if not torch.isfinite(logits).all():
        raise ValueError(f"{system.name} returns what is no number for a clean scan")
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and torch.allclose(
        sums, torch.ones_like(sums), atol=SUM_TOLERANCE
    ):
        raise ValueError(
            f"{system.name} returns probabilities: their gradient vanishes where the system is "
            "sure, which looks like robustness; return logits or log-probabilities"
        )
    enough = min(map(len, kinds)) >= limit  # of fewer it may be chance
    if bool((logits == logits[0]).all()) or (enough and len(logits.argmax(1).unique()) == 1):
        raise ValueError(f"{system.name} says the same of every scan, whatever is in it")


def run_checks(
    system: System, few: ScanDataset, eps: float, device: torch.device
) -> dict[str, Any]:
    """Measure the self-checks of a system and of its detector, with their warnings."""
    found, warnings = check_gradients(system, few, eps, device)
    found["detector"], more = check_detector(system, few, eps, device)
    return {**found, "weights": system.key, "warnings": warnings + more}


def check_gradients(
    system: System, fold: ScanDataset, eps: float, device: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Check a system's gradients; return figures, and a sentence for each failed check.

    Scans that a system refuses are read here: a refusal is not a correct reading.
    """
    system = replace(system, refuses=False)
    found, warnings = {}, []
    scans = fold.batches(len(fold), device)[0]
    x, y, seeds = scans

    def logits(z: Tensor) -> Tensor:
        return system.logits(z, seeds)

    grad, _ = gradient(logits, x, y, 0)
    found["zero_gradients"] = zero_share(grad)
    if found["zero_gradients"] > MAX_ZERO_SHARE:
        share = f"{found['zero_gradients']:.0%}"
        warnings.append(f"{system.name}: {share} of the scans have no gradient at all")
    coarse, _ = gradient(bfloat16_logits(system, scans), x, y, 0)
    found["precision"] = float(gradient_cosines(grad, coarse).median())
    if found["precision"] < MIN_GRADIENT_COSINE and not found["zero_gradients"]:
        warnings.append(
            f"{system.name}: the gradient that attacks follow has a cosine of "
            f"{found['precision']:.2f} with the exact one"
        )
    found["slope"] = slope_of(lambda z: margin(logits(z), y), x, FD_STEP)[0]
    if not SLOPES[0] <= found["slope"] <= SLOPES[1]:
        warnings.append(
            f"{system.name}: the margin rises {found['slope']:.2f} times what its gradient promises"
        )

    def left(tries: list[Tensor]) -> float:
        return read_adversarial(system, scans, tries).bits["right"].count("1") / len(y)

    found["clean"] = left([x])
    found["eps_0"] = left([PGD(eps=0.0, steps=1)(logits, x, y, seeds)])
    found["noise"] = left([random_corner(x, eps, seeds)])
    few, many = (APGD(eps, steps)(logits, x, y, seeds) for steps in (FEW_STEPS, 5 * FEW_STEPS))
    found["few_steps"], found["many_steps"] = left([few]), left([many])
    if found["many_steps"] > found["few_steps"] + 1 / len(y) + 1e-9:  # a scan may fall to luck
        warnings.append(
            f"{system.name}: {5 * FEW_STEPS} steps leave {found['many_steps']:.3f} right, "
            f"{FEW_STEPS} steps {found['few_steps']:.3f}: the attack does not converge"
        )
    large = PGD(eps=LARGE_EPS, alpha=2.5 * LARGE_EPS / LARGE_EPS_STEPS, steps=LARGE_EPS_STEPS)
    found["eps_.25"] = left([large(logits, x, y, seeds)])
    if found["eps_0"] != found["clean"]:
        warnings.append(
            f"{system.name}: eps 0 leaves {found['eps_0']:.3f}, clean {found['clean']:.3f}"
        )
    if found["eps_.25"] > 0.05:
        warnings.append(
            f"{system.name}: eps {LARGE_EPS} leaves {found['eps_.25']:.3f} right: gradients may be "
            "masked"
        )
    return {"n": len(y), **found}, warnings


def gradient_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Compute cosines (B,) of gradients, also of tiny ones."""
    tiny = torch.finfo(first.dtype).tiny
    rows = (g.flatten(1) / g.flatten(1).abs().amax(1, keepdim=True).clamp_min(tiny)
            for g in (first, second))  # fmt: skip
    return F.cosine_similarity(*rows)


def slope_of(value: ValueFn, x: Tensor, fine: float) -> tuple[float, Tensor]:
    """Measure the rise of `value` (B,) after a tiny step along its gradient's sign; return both.

    The median over scans of the rise over what the gradient promises; 0 where it promises nothing.
    """
    z = x.clone().requires_grad_()
    before = value(z)
    (grad,) = torch.autograd.grad(before.sum(), z)
    step = (x + fine * grad.sign()).clamp(0, 1) - x
    promised = (grad * step).flatten(1).sum(1)
    with torch.no_grad():
        rise = value(x + step) - before.detach()
    ratio = torch.where(promised > 0, rise / promised.clamp_min(1e-12), 0.0)
    return float(ratio.median()), grad


def zero_share(grad: Tensor) -> float:
    """Compute the share of scans (B, C, H, W) without any gradient.

    Where an expert sees nothing the gradient is 0 by right: in scans, not in pixels.
    """
    return float((grad.flatten(1).abs().amax(1) == 0).double().mean())


def check_detector(
    system: System, fold: ScanDataset, eps: float, device: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Return figures and a sentence for each failed check; nothing without a detector.

    Attacks begin at scans moved by random signs of size eps. There the score must have a gradient
    and rise along it as it promises, and following it must lower the score further than Square,
    which needs none. `signed` is the score after steps of one size in every pixel.
    """
    if system.detector is None:
        return {}, []
    detector, name = system.detector, system.name
    scans = fold.batches(len(fold), device)[0]
    x, y, seeds = scans
    look = view_detector(system, scans)

    def score(z: Tensor) -> Tensor:
        return (detector.read(z, seeds).score - detector.tau) / detector.span

    def lowered(z: Tensor) -> Tensor:
        return as_logits(-look(z)[1], y)

    start = random_corner(x, eps, seeds)
    slope, grad = slope_of(score, start, SCORE_FD_STEP)
    found: dict[str, Any] = {"n": len(y), "zero_gradients": zero_share(grad), "slope": slope}
    signed = APGD(eps, SCORE_STEPS, loss="margin")(lowered, x, y, seeds)
    # always misread by far: only lowering the score is left
    with_it = DetectorAwarePGD(eps, SCORE_STEPS)(
        lambda z: (MISREAD_MARGIN + 0 * z.sum((1, 2, 3)), look(z)[1]), x, start
    )
    without = Square(eps, SCORE_QUERIES, until_wrong=False)(lowered, x, y, seeds)
    with torch.no_grad():
        for key, z in (("clean", x), ("moved", start), ("signed", signed),
                       ("with_gradient", with_it), ("without", without)):  # fmt: skip
            lower = torch.minimum(score(z), score(to_eight_bit(x, z)))
            found[key] = float(lower.median())  # above tau, in its span
    warnings = []
    if found["zero_gradients"] > MAX_ZERO_SHARE:
        share = f"{found['zero_gradients']:.0%}"
        warnings.append(f"{name}: for {share} of the scans the detector's score has no gradient")
    if not SLOPES[0] <= found["slope"] <= SLOPES[1]:
        warnings.append(
            f"{name}: the detector's score rises {found['slope']:.2f} times what its gradient "
            "promises"
        )
    if found["with_gradient"] > found["without"]:
        warnings.append(
            f"{name}: following its gradient leaves the detector's score at "
            f"{found['with_gradient']:.2f}, Square at {found['without']:.2f}: it may be masked"
        )
    return found, warnings


def check_attacks(
    pipeline: MedFedPure,
    fold: ScanDataset,
    systems: Sequence[System],
    eps: float,
    batch_size: int = 32,
) -> tuple[dict[str, Any], list[str]]:
    """Run small attacks with a known outcome on each classifier.

    Returns:
        The figures, and a sentence for each failed check.
    """
    few, found, warnings = fold.thin(CHECKED_SCANS), {}, []
    alone = [s for s in systems if s.policy is None]

    def right(attack: Attack) -> dict[str, float]:
        readings = measure_readings(pipeline, few, attack, Attacker(eps), alone, batch_size)
        return {name: metrics.accuracy(r.probability, few.labels) for name, r in readings.items()}

    zero, large = PGD(eps=0.0), PGD(eps=0.25, alpha=0.03, steps=20)
    attacks = {"clean": CLEAN, "eps_0": _on_classifier(zero), "noise": RANDOM_NOISE, "A0": A0,
               "eps_.25": _on_classifier(large)}  # fmt: skip
    rates = {key: right(attack) for key, attack in attacks.items()}
    for name in rates["clean"]:
        rate = found[name] = {key: rates[key][name] for key in attacks}
        if rate["eps_0"] != rate["clean"]:
            warnings.append(f"{name}: eps 0 gives {rate['eps_0']:.3f}, clean {rate['clean']:.3f}")
        if rate["A0"] > rate["noise"] + SLACK:
            warnings.append(
                f"{name}: PGD ({rate['A0']:.3f}) is weaker than noise ({rate['noise']:.3f})"
            )
        if rate["eps_.25"] > 0.05:
            warnings.append(
                f"{name}: eps .25 leaves {rate['eps_.25']:.3f}: gradients may be masked"
            )
    return {"n": len(few), "systems": found}, warnings


def check_rows(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a warning for each stronger attack after which more scans are correct."""
    warnings = []
    pairs = [p for p in (("clean", "A0"), ("clean", "A0-8bit")) if rows.keys() >= set(p)]
    for weak, strong in pairs:
        before, after = rows[weak]["systems"], rows[strong]["systems"]
        for name in before.keys() & after.keys():
            if after[name]["accuracy"] > before[name]["accuracy"] + SLACK:
                warnings.append(
                    f"{name}: {strong} leaves {after[name]['accuracy']:.3f}, "
                    f"more than {weak} ({before[name]['accuracy']:.3f})"
                )
    return sorted(warnings)


def _on_classifier(algorithm: PGD) -> Attack:
    return Attack("self-check", "", "", CLASSIFIER, lambda _: algorithm)
