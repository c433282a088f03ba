"""Systems under attack: a classifier, the defence in front of it, and gradients through both."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.options import require_known
from bench.provenance import key_of
from bench.robustness.filters import bits, jpeg, median
from bench.summaries import Reading, join_readings
from core.attacks import straight_through
from core.diffusion import to_pixels
from core.pipeline import MedFedPure
from core.purifier import Purifier

PATHS = ("exact", "identity", "noise")
QUALITY, WIDTH, DEPTH = 75, 3, 5  # of JPEG; of the median in pixels; in bits
DIFFPURE_T = 100  # depth of DiffPure's published setting for this eps (sigma .17)
RANK = "rank"  # policy: the paper's detector as published, which needs the whole data set
ClassifyFn = Callable[[Tensor], Tensor]
FrontFn = Callable[..., Tensor]  # of scans, one seed each, and depths (B,) where it has any


class AttackedDetector(NamedTuple):
    """A detector as an attacker sees it: differentiable reading, threshold, spread above it."""

    read: Callable[[Tensor, Sequence[int]], DetectorReading]
    tau: float
    span: float


class DetectorReading(NamedTuple):
    """Of B scans, from one pass of the detector."""

    logits: Tensor  # (B, C) of the whole system
    score: Tensor  # (B,)
    features: Tensor  # (B, F), each divided by its clean spread


@dataclass(frozen=True)
class System:
    """`classify` is what the paper's attacker sees; `front` changes a scan before it.

    Where the change has a depth, `depth` finds it and `front` takes it. A system that `refuses`
    does not classify flagged scans: a clean one counts as wrong, an attacked one as correct.
    """

    name: str
    meaning: str
    classify: ClassifyFn
    front: FrontFn | None = None
    depth: ClassifyFn | None = None
    detector: AttackedDetector | None = None
    has_gradient: bool = True  # of `front`; without one, every path is the identity
    is_purifier: bool = False  # of every scan
    refuses: bool = False
    estimates: Callable[[Tensor, Sequence[int]], list[Tensor]] | None = None  # of several steps
    parts: tuple[nn.Module, ...] = ()  # networks whose tensors decide its readings
    settings: tuple[object, ...] = ()  # configurations that decide them too
    surface: str = ""  # the attacked classifier: trained, uniform, expert or plain
    policy: str | None = None  # of purification; RANK for the detector as published

    @property
    def key(self) -> str:
        """Return a short hash of what decides its readings; other keys are other systems."""
        return key_of({"tensors": [tensors_key(part) for part in self.parts],
                       "settings": repr(self.settings)})  # fmt: skip

    def logits(
        self, x: Tensor, seeds: Sequence[int], path: str = "exact", depth: Tensor | None = None
    ) -> Tensor:
        """Return the whole system's logits (B, C); backward along one of PATHS.

        'identity' is BPDA; 'noise' leaves the direct path out, so that the gradient is that of the
        predicted noise alone. Forward all are the same. `depth` (B,) spares finding it.
        """
        front = self.front
        if front is None:
            return self.classify(x)
        if self.depth:
            found = self.depth(x) if depth is None else depth

        def change(z: Tensor) -> Tensor:
            return front(z, seeds, found) if self.depth else front(z, seeds)

        if path == "identity" or not self.has_gradient:
            return self.classify(straight_through(change, x))
        pure = change(x)
        if path == "noise":  # where the result is cut off at 0 or 1, nothing comes back anyway
            inside = ((pure > 0) & (pure < 1)).detach()
            pure = pure - inside * (x - x.detach())
        return self.classify(pure)


ALL_SCANS_SYSTEMS = {  # measured on every scan under the paper's attack; titles in tables
    "defence": "full pipeline",
    "defence-paper-policy": "pipeline, purifies flagged scans only",
    "defence-published-gate": "pipeline, purifies the 18 % of highest MAE error",
    "trained-mixture": "trained mixture alone",
    "uniform-attention": "experts with equal weights",
    "best-expert": "best single expert",
    "undefended": "plain classifier",
    "plain-purified": "plain classifier behind detector and purifier",
    "plain-purified-paper-policy": "plain classifier, purifies flagged scans only",
}
SUITE_SYSTEMS = {  # measured under the attack suite
    "defence": "full pipeline",
    "defence-paper-policy": "pipeline, purifies flagged scans only",
    "detection-only": "detector refuses flagged scans",
    "purify-all": "purifies every scan",
    "trained-mixture": "trained mixture alone",
    "uniform-attention": "experts with equal weights",
    "undefended": "plain classifier",
    "plain-purified": "plain classifier behind detector and purifier",
    "diffpure": "DiffPure",
    "jpeg": "JPEG",
    "median": "median filter",
    "bits": "bit depth",
}
SYSTEM_TITLES = ALL_SCANS_SYSTEMS | SUITE_SYSTEMS


def build_systems(
    pipeline: MedFedPure,
    names: Sequence[str] | None = None,
    among: Sequence[str] = tuple(SUITE_SYSTEMS),
    expert: int = 0,
) -> list[System]:
    """Return the systems of these names, in the order of `among`; all of them by default.

    Raises:
        ValueError: a name is not in `among`.
    """
    require_known("system", names or (), among)
    known = {system.name: system for system in _all(pipeline, expert)}
    return [known[name] for name in among if not names or name in names]


def classifier_of(pipeline: MedFedPure, surface: str, expert: int = 0) -> ClassifyFn:
    """Return a classifier's calibrated log-probabilities (B, 2), differentiable.

    `surface`: trained, plain, uniform (experts with equal weights) or expert (one of them).
    """
    calibrated = pipeline.classifier

    def classify_expert(x: Tensor) -> Tensor:
        logits = calibrated.model.experts[expert](x)
        return calibrated.calibrate(logits.float().log_softmax(1))

    def classify_uniform(x: Tensor) -> Tensor:
        logits = torch.stack([e(x).float().log_softmax(1) for e in calibrated.model.experts])
        return calibrated.calibrate(torch.logsumexp(logits, 0) - math.log(len(logits)))

    return {
        "trained": pipeline.classifier_logits,
        "plain": pipeline.plain_logits,
        "expert": classify_expert,
        "uniform": classify_uniform,
    }[surface]


def _all(p: MedFedPure, expert: int) -> list[System]:
    trained, uniform, plain = (classifier_of(p, s) for s in ("trained", "uniform", "plain"))
    own, unet, depths = p.config, p.purifier.noise_pred, p.config.purifier
    deep = depths.t_min
    # the detector reads both classifiers' gradients and the purifier's noise
    guarded = {"parts": (p.classifier, p.plain, unet, p.detector), "settings": (own,)}
    mixture = {"parts": (p.classifier,), "settings": (own.moe,)}
    slow = Purifier(unet, p.purifier.diffusion, replace(depths, sampler="ddim", steps=4, noises=1))

    def see_detector(classify: ClassifyFn, policy: str | None) -> AttackedDetector:
        return AttackedDetector(partial(_read, p, classify, policy), p.tau, p.detector.span_of())

    def purify(x: Tensor, seeds: Sequence[int], t_star: Tensor) -> Tensor:
        return p.purify(x, t_star, seeds)

    def guard(name: str, meaning: str, surface: str, policy: str) -> System:
        classify = classifier_of(p, surface)
        return System(
            name, meaning, classify, purify, partial(depth_of, p, policy),
            see_detector(classify, policy), is_purifier=policy == "floor",
            surface=surface, policy=policy, **guarded,
        )  # fmt: skip

    def filter_first(name: str, meaning: str, change: ClassifyFn, setting: int) -> System:
        return System(
            name, meaning, plain, lambda x, _: change(x, setting), has_gradient=name == "median",
            parts=(p.plain,), settings=(own.plain, setting), surface="plain",
        )  # fmt: skip

    return [
        guard("defence", "detector, purifier (policy floor), trained mixture", "trained", "floor"),
        guard("defence-paper-policy", "detector, purifier of flagged scans only, trained mixture",
              "trained", "paper"),
        System("defence-published-gate", "purifier of the share kappa of highest MAE error, trained"
               " mixture", trained, surface="trained", policy=RANK, **guarded),
        System("detection-only", "trained mixture that refuses flagged scans", trained,
               detector=see_detector(trained, None), refuses=True, surface="trained", **guarded),
        System("purify-all", f"every scan purified to t = {deep}, trained mixture", trained,
               partial(_to_depth, p.purifier, deep), is_purifier=True, surface="trained",
               parts=(p.classifier, unet), settings=(depths, own.moe, own.unet)),
        System("trained-mixture", "adversarially trained mixture alone", trained,
               surface="trained", **mixture),
        System("uniform-attention", "experts of the mixture with equal weights", uniform,
               surface="uniform", **mixture),
        System("best-expert", "best single expert of the mixture, chosen on validation scans",
               classifier_of(p, "expert", expert), surface="expert", **mixture),
        System("undefended", "plain classifier, trained without adversarial examples", plain,
               parts=(p.plain,), settings=(own.plain,), surface="plain"),
        guard("plain-purified", "detector, purifier (policy floor), plain classifier", "plain",
              "floor"),
        guard("plain-purified-paper-policy", "detector, purifier of flagged scans only, plain "
              "classifier", "plain", "paper"),
        System("diffpure", f"DiffPure at t = {DIFFPURE_T}, 4 DDIM steps, plain classifier", plain,
               partial(_to_depth, slow, DIFFPURE_T), is_purifier=True, surface="plain",
               estimates=partial(_estimates, slow, DIFFPURE_T),
               parts=(p.plain, unet), settings=(slow.config, DIFFPURE_T, own.plain, own.unet)),
        filter_first("jpeg", f"JPEG of quality {QUALITY}, plain classifier", jpeg, QUALITY),
        filter_first("median", f"{WIDTH} x {WIDTH} median, plain classifier", median, WIDTH),
        filter_first("bits", f"{DEPTH} bits a pixel, plain classifier", bits, DEPTH),
    ]  # fmt: skip


def depth_of(pipeline: MedFedPure, policy: str | None, x: Tensor) -> Tensor:
    """Return the depth (B,) int64 to which a policy purifies scans (B, C, H, W)."""
    return pipeline.t_star(pipeline.score(pipeline.detect(x)), policy)


@torch.no_grad()
def read_together(
    pipeline: MedFedPure, systems: Sequence[System], x: Tensor, seeds: Sequence[int]
) -> dict[str, Reading]:
    """Return readings of the same scans by several systems; detector and purifier run once."""
    score: Tensor | None = None
    pure, done = x, torch.zeros(len(x), dtype=torch.long, device=x.device)
    readings = {}
    for system in systems:
        x_pur, flagged, t_star, attention = x, None, None, None
        if system.policy is not None:
            if score is None:
                score = pipeline.score(pipeline.detect(x))
            t_star = pipeline.t_star(score, system.policy)
            flagged = score > pipeline.tau
            # policies agree on flagged scans: results at this depth are reused
            same = t_star == done
            rest = pipeline.purify(x, t_star.masked_fill(same, 0), seeds)
            x_pur = torch.where(same[:, None, None, None], pure, rest)
            if (~same & (t_star > 0)).any():
                pure, done = x_pur, t_star
        if system.surface == "trained":
            output = pipeline.classifier.model.outputs(x_pur)
            log_probs = pipeline.classifier.calibrate(output.logits)
            attention = output.attention
        else:
            log_probs = system.classify(x_pur)
        readings[system.name] = Reading(log_probs.exp()[:, 1], flagged, t_star, attention)
    return readings


@torch.no_grad()
def read_by_rank(
    pipeline: MedFedPure, system: System, parts: Sequence[tuple[Tensor, Sequence[int]]]
) -> Reading:
    """Return readings with the paper's detector as published: the top share kappa is purified.

    `parts` are scans (B, C, H, W) with their seeds, all of the data set: which are flagged depends
    on the others. Flagged scans are purified deeper the higher their score.
    """
    score = torch.cat([pipeline.detect(x).scores["paper"] for x, _ in parts])
    flagged = pipeline.detector.flag_by_rank(score)
    span = pipeline.detector.span_of("paper")
    lowest = score[flagged].min() if flagged.any() else score.max()
    below = float(torch.nextafter(lowest, lowest.new_tensor(-torch.inf)))
    t_star = pipeline.purifier.t_star(score, below, span, "paper")
    depths = t_star.masked_fill(~flagged, 0).split([len(x) for x, _ in parts])
    probability = [
        system.classify(pipeline.purify(x, depth, seeds)).exp()[:, 1]
        for (x, seeds), depth in zip(parts, depths, strict=True)
    ]
    return join_readings([Reading(torch.cat(probability), flagged, torch.cat(depths))])


def tensors_key(part: nn.Module) -> str:
    """Return a short hash of a network's tensors, names and shapes included."""
    found = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _read(
    p: MedFedPure, classify: ClassifyFn, policy: str | None, x: Tensor, seeds: Sequence[int]
) -> DetectorReading:
    """Return one differentiable reading; without a policy nothing is purified."""
    found = p.detector(x)
    score = p.score(found)
    pure = x if policy is None else p.purify(x, p.t_star(score.detach(), policy), seeds)
    return DetectorReading(classify(pure), score, found.features / p.detector.spread)


def _to_depth(purifier: Purifier, depth: int, x: Tensor, seeds: Sequence[int]) -> Tensor:
    t_star = torch.full((len(x),), depth, device=x.device)
    pure: Tensor = purifier(x, t_star, seeds)
    return pure


def _estimates(purifier: Purifier, depth: int, x: Tensor, seeds: Sequence[int]) -> list[Tensor]:
    """Return the clean scan (B, C, H, W) as each step of a one-noise purifier predicts it."""
    seen: list[Tensor] = []
    own = threading.get_ident()  # another thread may run the same network

    def keep(_: nn.Module, taken: tuple[Tensor, Tensor], noise_pred: Tensor) -> None:
        if threading.get_ident() != own:
            return
        x_0 = purifier.diffusion.predict_x0(*taken, noise_pred)
        seen.append(to_pixels(x_0).clamp(0, 1))

    handle = purifier.noise_pred.register_forward_hook(keep)
    try:
        _to_depth(purifier, depth, x, seeds)
    finally:
        handle.remove()
    return seen
