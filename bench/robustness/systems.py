"""A system as its attackers see it: a classifier, what stands in front, ways back through it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.names import require_known
from bench.provenance import key_of
from bench.robustness.filters import bits, jpeg, median
from bench.robustness.old_systems import Bench, depth_of
from core.attacks import straight_through
from core.diffusion import to_pixels
from core.pipeline import MedFedPure
from core.purifier import Purifier

PATHS = ("exact", "identity", "noise")
QUALITY, WIDTH, DEPTH = 75, 3, 5  # of JPEG; of the median in pixels; in bits
DIFFPURE_T = 100  # depth at which DiffPure's own figure for this eps lies (sigma .17)
ClassifyFn = Callable[[Tensor], Tensor]
FrontFn = Callable[..., Tensor]  # of scans, one seed each, and depths (B,) where it has any


class Gate(NamedTuple):
    """A detector in front: what it says, differentiable, the threshold, the distance it rises."""

    read: Callable[[Tensor, Sequence[int]], GateReading]
    tau: float
    span: float


class GateReading(NamedTuple):
    """Of B scans, from one pass of the detector."""

    logits: Tensor  # (B, C) of the whole system
    score: Tensor  # (B,)
    features: Tensor  # (B, F), each divided by its clean spread


@dataclass(frozen=True)
class Target:
    """`classify` is what the paper's attacker sees; `front` changes a scan before it.

    Where the change has a depth, `depth` finds it and `front` takes it. A target that `refuses`
    reads no flagged scan: a clean one is lost to it, an attacked one does no harm.
    """

    name: str
    meaning: str
    classify: ClassifyFn
    front: FrontFn | None = None
    depth: ClassifyFn | None = None
    gate: Gate | None = None
    has_gradient: bool = True  # of `front`; where it has none, every path is the identity
    is_purifier: bool = False  # of every scan
    refuses: bool = False
    estimates: Callable[[Tensor, Sequence[int]], list[Tensor]] | None = None  # of several steps
    parts: tuple[nn.Module, ...] = ()  # whose tensors decide what it says
    settings: tuple[object, ...] = ()  # which decide it too

    @property
    def key(self) -> str:
        """Short hash of what decides its readings: figures of another key are not its own."""
        return key_of({"tensors": [tensors_key(part) for part in self.parts],
                       "settings": repr(self.settings)})  # fmt: skip

    def logits(
        self, x: Tensor, seeds: Sequence[int], path: str = "exact", depth: Tensor | None = None
    ) -> Tensor:
        """The whole system's logits (B, C); backward along one of PATHS.

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


NAMES = (
    "defence", "defence-paper-policy", "detection-only", "purify-all", "trained-mixture",
    "uniform-attention", "undefended", "plain-purified", "diffpure", "jpeg", "median", "bits",
)  # fmt: skip


def targets(pipeline: MedFedPure, names: Sequence[str] | None = None) -> list[Target]:
    """The targets of these names, all by default. Raises ValueError for an unknown one."""
    known = {t.name: t for t in _all(pipeline)}
    require_known("system", names or (), known)
    return [t for name, t in known.items() if not names or name in names]


def _all(p: MedFedPure) -> list[Target]:
    trained, uniform, plain = (
        partial(Bench(p).classify, s) for s in ("trained", "uniform", "plain")
    )

    def gate(classify: ClassifyFn, policy: str | None) -> Gate:
        read = partial(_read, p, classify, policy)
        return Gate(read, p.tau, p.detector.span_of())

    def pure(x: Tensor, seeds: Sequence[int], t_star: Tensor) -> Tensor:
        return p.purify(x, t_star, seeds)

    floor = partial(depth_of, p, "floor")
    deep = p.config.purifier.t_min
    own, unet, depths = p.config, p.purifier.noise_pred, p.config.purifier
    # the detector reads both classifiers' gradients and the purifier's noise
    guarded = {"parts": (p.classifier, p.plain, unet, p.detector),
               "settings": (own,)}  # fmt: skip
    slow = Purifier(
        p.purifier.noise_pred, p.purifier.diffusion,
        replace(p.config.purifier, sampler="ddim", steps=4, noises=1),
    )  # fmt: skip
    return [
        Target("defence", "detector, purifier (policy floor), trained mixture", trained,
               pure, floor, gate(trained, "floor"), is_purifier=True, **guarded),
        Target("defence-paper-policy", "the same, purifying flagged scans only", trained,
               pure, partial(depth_of, p, "paper"), gate(trained, "paper"), **guarded),
        Target("detection-only", "trained mixture, which reads no flagged scan (an attacked one "
               "that is flagged withstands, a clean one is lost)", trained,
               gate=gate(trained, None), refuses=True, **guarded),
        Target("purify-all", f"every scan purified to t = {deep}, trained mixture", trained,
               partial(_to_depth, p.purifier, deep), is_purifier=True,
               parts=(p.classifier, unet), settings=(depths, own.moe, own.unet)),
        Target("trained-mixture", "adversarially trained mixture alone", trained,
               parts=(p.classifier,), settings=(own.moe,)),
        Target("uniform-attention", "static at equal cost: experts with equal weights", uniform,
               parts=(p.classifier,), settings=(own.moe,)),
        Target("undefended", "plain classifier alone", plain, parts=(p.plain,),
               settings=(own.plain,)),
        Target("plain-purified", "detector and purifier (policy floor), plain classifier", plain,
               pure, floor, gate(plain, "floor"), is_purifier=True, **guarded),
        Target("diffpure", f"DiffPure at t = {DIFFPURE_T}, 4 DDIM steps, plain classifier", plain,
               partial(_to_depth, slow, DIFFPURE_T), is_purifier=True,
               estimates=partial(_estimates, slow, DIFFPURE_T),
               parts=(p.plain, unet), settings=(slow.config, DIFFPURE_T, own.plain, own.unet)),
        Target("jpeg", f"JPEG of quality {QUALITY}, plain classifier", plain,
               lambda x, _: jpeg(x, QUALITY), has_gradient=False,
               parts=(p.plain,), settings=(own.plain, QUALITY)),
        Target("median", f"{WIDTH} x {WIDTH} median, plain classifier", plain,
               lambda x, _: median(x, WIDTH), parts=(p.plain,), settings=(own.plain, WIDTH)),
        Target("bits", f"{DEPTH} bits a pixel, plain classifier", plain,
               lambda x, _: bits(x, DEPTH), has_gradient=False,
               parts=(p.plain,), settings=(own.plain, DEPTH)),
    ]  # fmt: skip


def tensors_key(part: nn.Module) -> str:
    """Short hash of a network's tensors, names and shapes included."""
    found = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _read(
    p: MedFedPure, classify: ClassifyFn, policy: str | None, x: Tensor, seeds: Sequence[int]
) -> GateReading:
    """Without a policy nothing is purified."""
    found = p.detector(x)
    score = p.score(found)
    pure = x if policy is None else p.purify(x, p.t_star(score.detach(), policy), seeds)
    return GateReading(classify(pure), score, found.features / p.detector.spread)


def _to_depth(purifier: Purifier, depth: int, x: Tensor, seeds: Sequence[int]) -> Tensor:
    t_star = torch.full((len(x),), depth, device=x.device)
    pure: Tensor = purifier(x, t_star, seeds)
    return pure


def _estimates(purifier: Purifier, depth: int, x: Tensor, seeds: Sequence[int]) -> list[Tensor]:
    """The clean scan (B, C, H, W) as each step of a purifier of one noise a scan sees it."""
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
