"""The paper's figure 2(b) as code: detect, choose t_star, purify, classify."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from core.classifier import Calibrated
from core.detector import Detection, Detector, DetectorConfig
from core.diagnosis import Diagnosis
from core.diffusion import Diffusion
from core.explanation import explain
from core.features import FEATURES
from core.mae import MAEConfig, MaskedAutoencoder
from core.moe import MixtureOfExperts, MoEConfig
from core.novelty import Novelty
from core.purifier import Purifier, PurifierConfig
from core.stability import FORGIVEN, Flips, StabilityConfig, TooSlowError, find_flips
from core.steganalysis import ResidualConfig, ResidualNet
from core.unet import UNet, UNetConfig

# scans of a volume that are read together: larger batches are no faster and take more memory
BATCH_SIZE = 8


@dataclass(frozen=True)
class PipelineConfig:
    """Shapes of all parts. `plain` is the mixture trained without adversarial examples."""

    moe: MoEConfig = field(default_factory=MoEConfig)
    plain: MoEConfig = field(default_factory=MoEConfig)
    mae: MAEConfig = field(default_factory=MAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    purifier: PurifierConfig = field(default_factory=PurifierConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)

    def __post_init__(self) -> None:
        if len({self.moe.img_size, self.plain.img_size, self.mae.img_size}) > 1:
            raise ValueError("classifiers and autoencoder must share one img_size")


class Outputs(NamedTuple):
    """Result of one differentiable pass of the defence over B scans."""

    detection: Detection
    score: Tensor  # (B,)
    t_star: Tensor  # (B,)
    x_pur: Tensor  # (B, C, H, W)
    logits: Tensor  # (B, 2)


class MedFedPure(nn.Module):
    """The full pipeline: `logits` is differentiable end to end, `read` is for users."""

    def __init__(
        self,
        config: PipelineConfig,
        classifier: Calibrated,
        plain: Calibrated,
        mae: MaskedAutoencoder,
        noise_pred: UNet,
        residual_net: ResidualNet,
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.info = info or {}
        self.classifier = classifier
        self.plain = plain
        diffusion = Diffusion()
        self.purifier = Purifier(noise_pred, diffusion, config.purifier)
        self.detector = Detector(
            config.detector, mae, residual_net, noise_pred, diffusion, classifier, plain
        )
        self.novelty = Novelty(config.mae.embed_dim)
        self.eval()
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device that holds the parts."""
        return self.detector.weight.device

    def classifier_logits(self, x: Tensor) -> Tensor:
        """Return logits (B, 2) of the trained mixture alone, the target of the paper's attack."""
        logits: Tensor = self.classifier(x)
        return logits

    def plain_logits(self, x: Tensor) -> Tensor:
        """Return logits (B, 2) of the plain classifier, trained without adversarial examples."""
        logits: Tensor = self.plain(x)
        return logits

    def logits(self, x: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return logits (B, 2) of the full pipeline on scans (B, 1, H, W), one seed per scan."""
        if not self.reads_purified:
            return self.classifier_logits(x)
        t_star = self.t_star(self.score(self.detect(x)))
        return self.classifier_logits(self.purify(x, t_star, seeds))

    def detect(self, x: Tensor) -> Detection:
        """Detect, figure 2(b), first box. t_star is an integer: no gradient passes through it."""
        detection: Detection = self.detector(x.detach())
        return detection

    def score(self, detection: Detection) -> Tensor:
        """Return the deciding score (B,)."""
        return detection.scores[self.config.detector.score]

    def measure_novelty(self, x: Tensor) -> Tensor:
        """Measure the out-of-distribution score (B,) of scans (B, 1, H, W): see `novelty.limit`."""
        novelty: Tensor = self.novelty(self.detector.mae.encode(x))
        return novelty

    def t_star(self, score: Tensor, policy: str | None = None) -> Tensor:
        """Choose the purification depth (B,) int64 from scores (B,)."""
        return self.purifier.t_star(score, self.tau, self.detector.span_of(), policy)

    @property
    def reads_purified(self) -> bool:
        """True if the classifier reads purified scans, False under policy `picture`."""
        return self.purifier.config.policy != "picture"

    @property
    def tau(self) -> float:
        """Threshold of the deciding score."""
        return self.detector.tau()

    def purify(self, x: Tensor, t_star: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Purify, figure 2(b), second box: x_pur (B, 1, H, W)."""
        x_pur: Tensor = self.purifier(x, t_star, [0] * len(x) if seeds is None else seeds)
        return x_pur

    def find_flips(self, x: Tensor) -> Flips | None:
        """Find the nearest flips of the mixture's answers to scans (B, 1, H, W); None: too slow."""
        c = self.config.stability
        try:
            return find_flips(self.classifier_logits, x, c.radii, c.steps, c.seconds)
        except TooSlowError:
            return None

    def with_options(
        self, score: str | None = None, policy: str | None = None, d: float | None = None
    ) -> MedFedPure:
        """Return the system with another deciding score, policy or radius, weights shared.

        Args:
            score: of the detector, of `core.detector.SCORES`.
            policy: of purification, of `core.purifier.POLICIES`.
            d: within which an answer that flips counts as not stable.

        Raises:
            ValueError: there is no such score or policy, or d is out of range.
        """
        detector, purifier, stability = (
            self.config.detector, self.config.purifier, self.config.stability
        )  # fmt: skip
        detector = replace(detector, score=score or detector.score)
        purifier = replace(purifier, policy=policy or purifier.policy)
        stability = replace(stability, d=stability.d if d is None else d)
        config = replace(self.config, detector=detector, purifier=purifier, stability=stability)
        if config == self.config:
            return self
        other = copy.copy(self)  # the same parameters and buffers
        other._modules, other.config = dict(self._modules), config
        other.detector, other.purifier = copy.copy(self.detector), copy.copy(self.purifier)
        other.detector.config, other.purifier.config = detector, purifier
        return other

    def with_tau(self, tau: float) -> MedFedPure:
        """Return the system with another threshold of the deciding score, weights shared."""
        other = copy.copy(self)
        other._modules = {**self._modules, "detector": self.detector.with_tau(tau)}
        return other

    def read(self, scan: Tensor, seed: int = 0) -> Diagnosis:
        """Read one canonical scan (1, H, W) in [0, 1].

        Raises:
            ValueError: the tensor is not a canonical scan.
        """
        return self.read_batch(scan[None], [seed])[0]

    @torch.no_grad()
    def read_batch(
        self, x: Tensor, seeds: Sequence[int], *, try_stability: bool = True
    ) -> list[Diagnosis]:
        """Read scans (B, 1, H, W); timings are those of the whole batch."""
        self._check(x)
        x = x.detach().to(self.detector.weight)  # its device and dtype
        clock = _Clock()
        detection = self.detect(x)
        novelty = self.measure_novelty(x)
        score = self.score(detection)
        t_star = self.t_star(score)
        clock.lap("detect")
        x_pur = self.purify(x, t_star, seeds)
        clock.lap("purify")
        output = self.classifier.model.outputs(x_pur if self.reads_purified else x)
        answer = self.classifier.calibrate(output.logits).exp()[:, 1]
        purified, unpurified = answer, detection.parts.trained_logits.exp()[:, 1]
        if not self.reads_purified:
            purified, unpurified = self.classifier(x_pur).exp()[:, 1], answer
        experts = self.classifier.calibrate(output.expert_logits).exp()[:, :, 1]
        explanation = explain(self.classifier, output)
        undefended = detection.parts.plain_logits.exp()[:, 1]
        clock.lap("classify")
        agree = (answer >= 0.5) == (unpurified >= 0.5)
        judged = novelty <= self.novelty.limit
        stability = self._try_stability(x, judged & try_stability, agree)
        clock.lap("stability")
        confidence = self.detector.confidence(score)
        contributions = self.detector.explain(detection.features)
        evidence = self.detector.locate(detection.parts)
        return [
            Diagnosis(
                scan=x[i].cpu(),
                error_map=detection.error[i].mean(0).cpu(),
                scores={k: float(v[i]) for k, v in detection.scores.items()},
                contributions=dict(zip(FEATURES, contributions[i].tolist(), strict=True)),
                usual_score=float(self.detector.offset),
                evidence=dict(zip(FEATURES, evidence[i].cpu(), strict=True)),
                score=float(score[i]),
                score_name=self.config.detector.score,
                tau=self.tau,
                flagged=bool(score[i] > self.tau),
                confidence=float(confidence[i]),
                novelty=float(novelty[i]),
                novelty_limit=float(self.novelty.limit),
                t_star=int(t_star[i]),
                purified=x_pur[i].cpu(),
                attention=output.attention[i].cpu(),
                expert_probabilities=experts[i].cpu(),
                expert_shares=explanation.shares[i].cpu(),
                operating_point=explanation.operating_point,
                overall_share=float(explanation.overall[i]),
                expert_maps=None if explanation.maps is None else explanation.maps[i].cpu(),
                tumour_map=None if explanation.mixed is None else explanation.mixed[i].cpu(),
                tumour_probability=float(answer[i]),
                tumour_probability_undefended=float(undefended[i]),
                tumour_probability_unpurified=float(unpurified[i]),
                tumour_probability_purified=float(purified[i]),
                policy=self.purifier.config.policy,
                **stability[i],
                timings_ms=clock.laps(),
                seed=int(seeds[i]),
            )
            for i in range(len(x))
        ]

    def _try_stability(self, x: Tensor, judged: Tensor, agree: Tensor) -> list[dict[str, Any]]:
        """Return the fields of `Diagnosis` on stability for each of B scans.

        Where purified and received scan get different answers (`agree` False), none is stable.
        """
        names = "stable", "stable_radius", "flip_distance", "flipped"
        d, rows = self.config.stability.d, judged.nonzero()[:, 0]
        fields = [{"stability_radius": d, **dict.fromkeys(names)} for _ in x]
        flips = self.find_flips(x[rows]) if len(rows) else None
        if flips is None:
            return fields
        for place, i in enumerate(rows.tolist()):
            radius = float(flips.radius[place]) if agree[i] else 0.0
            distance = float(flips.distance[place])
            is_found = distance < float("inf")
            fields[i] |= {
                "stable": radius >= d - FORGIVEN,
                "stable_radius": radius,
                "flip_distance": distance if is_found else None,
                "flipped": flips.scans[place].cpu() if is_found else None,
            }
        return fields

    def _check(self, x: Tensor) -> None:
        side = self.config.moe.img_size
        expected = (self.config.moe.in_chans, side, side)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(f"expected scans {expected}, got {tuple(x.shape[1:])}")
        if not len(x):
            raise ValueError("need at least one scan, got an empty batch")
        if not bool(torch.isfinite(x).all()) or float(x.min()) < 0 or float(x.max()) > 1:
            raise ValueError("scans must hold only numbers in [0, 1]")


class _Clock:
    """Stopwatch: milliseconds of each lap and in total."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": (self._last - self._start) * 1e3}


def build(config: PipelineConfig, info: dict[str, Any] | None = None) -> MedFedPure:
    """Build an untrained system of the given shape."""
    return MedFedPure(
        config,
        Calibrated(MixtureOfExperts(config.moe)),
        Calibrated(MixtureOfExperts(config.plain)),
        MaskedAutoencoder(config.mae),
        UNet(config.unet),
        ResidualNet(config.residual),
        info,
    )
