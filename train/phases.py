"""The phases of training on pooled data: what each one fits, on which scans, and what it writes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core import checkpoint
from core.attack.step import LogitsFn
from core.diffusion import Diffusion
from core.mae import MaskedAutoencoder
from core.moe import MixtureOfExperts, MoEConfig
from core.pipeline import MedFedPure, build
from core.residual import ResidualNet
from core.scan import SIZE
from core.system import PARTS, SYSTEM, load, save_part, save_ties
from core.unet import UNet
from train import calibrate as calibration
from train import classifier, detector, diffusion, mae, novelty
from train.commit import commit
from train.config import ClassifierPhase, Preset, check_fit
from train.corpus import Corpus
from train.device import pick_device
from train.progress import Progress
from train.task import FitConfig, LossFn, ValidateFn, fit

PAPER_EPS = 0.015
CLASSIFIERS = ("classifier.safetensors", "plain.safetensors")
# name of a state on disk -> the preset's table that it was trained by
PHASE_OF = {
    "classifier-warmup": "classifier",
    "classifier": "classifier",
    "plain": "plain",
    "diffusion": "diffusion",
    "mae": "mae",
    "residual": "detector",
}


class Phases:
    """Runs phases of one preset on one corpus into one folder; each can be run again alone.

    Raises:
        ValueError: the preset's networks do not fit the corpus' scans or number of classes.
        OSError: the folder cannot be made.
    """

    def __init__(self, preset: Preset, corpus: Corpus, out: Path, seed: int = 0) -> None:
        check_fit(preset, corpus)
        out.mkdir(parents=True, exist_ok=True)
        self.preset = preset
        self.corpus = corpus
        self.out = out
        self.seed = seed
        self.device = pick_device()

    def mixture(self) -> None:
        """The adversarially trained mixture, after a warm-up without attacks if there is one."""
        torch.manual_seed(self.seed)
        model = MixtureOfExperts(self.preset.system.moe)
        self._classifier("classifier", model, self.preset.classifier, self.preset.system.moe)

    def plain(self) -> None:
        """The plain mixture: what 'undefended' means."""
        torch.manual_seed(self.seed + 1)
        model = MixtureOfExperts(self.preset.system.plain)
        self._classifier("plain", model, self.preset.plain, self.preset.system.plain)

    def diffusion(self) -> None:
        """Phase 1 of the paper.

        Raises:
            WeightsError: it learns from attacks, and a classifier is not trained yet, or on another
                split or in another shape.
        """
        torch.manual_seed(self.seed + 2)
        phase, schedule = self.preset.diffusion, Diffusion().to(self.device)
        surfaces: list[LogitsFn] = []
        if phase.loss.adv_share:
            system = self._assemble(CLASSIFIERS)
            surfaces = [system.classifier_logits, system.plain_logits]
        self._fit(
            "diffusion",
            UNet(self.preset.system.unet),
            phase.fit,
            diffusion.loss_function(phase.loss, phase.augment, schedule, surfaces),
            diffusion.validation(self.corpus.val, schedule, phase.loss, self.device, surfaces),
            asdict(self.preset.system.unet),
        )

    def mae(self) -> None:
        """Phase 2 of the paper."""
        torch.manual_seed(self.seed + 3)
        phase = self.preset.mae
        self._fit(
            "mae",
            MaskedAutoencoder(self.preset.system.mae),
            phase.fit,
            mae.loss_function(phase.loss, phase.augment),
            mae.validation(self.corpus.val, self.device),
            asdict(self.preset.system.mae),
        )

    def detector(self) -> None:
        """The detector's residual network, against attacks on the two trained classifiers.

        Raises:
            WeightsError: a classifier is not trained yet, or on another split or in another shape.
        """
        torch.manual_seed(self.seed + 4)
        phase = self.preset.detector
        system = self._assemble(CLASSIFIERS)
        self._fit(
            "residual",
            ResidualNet(self.preset.system.residual),
            phase.fit,
            detector.loss_function(phase.loss, system),
            detector.validation(self.corpus.val, system, self.device),
            asdict(self.preset.system.residual),
        )

    def novelty(self) -> None:
        """The head that says where the system cannot judge: of brain MRI alone, others get none.

        Raises:
            WeightsError: the autoencoder is not trained yet, or on another split or in another
                shape.
        """
        progress = self._progress("novelty")
        system, c = self._assemble(["mae.safetensors"]), self.corpus
        if c.shape == (1, SIZE, SIZE):
            system.novelty, figures = novelty.fit_novelty(
                system.detector.mae, c.train, c.val, self.preset.novelty,
                seed=self.seed + 5, device=self.device, report=progress.report,
            )  # fmt: skip
            progress.report(f"{figures['score']:.3f} of new drawings refused")
            progress.write(**figures)
        else:
            progress.report("no pictures are drawn for this shape: everything will be judged")
        save_part(system.novelty, self.out, "novelty.safetensors", {}, c.split_sha256)

    def calibrate(self) -> None:
        """Ties the trained parts together: temperatures, operating points, detector, manifest.

        Raises:
            WeightsError: a part is not trained yet, or on another split or in another shape.
        """
        progress = self._progress("calibrate")
        system = self._assemble(PARTS)
        c = self.corpus
        figures = calibration.calibrate(
            system, c.train, c.val, self.preset.calibrate, progress.report
        )
        system.info = {
            "preset": self.preset.name,
            "protocol": c.protocol,
            "seed": self.seed,
            "validation": figures,
        }
        save_ties(system, self.out, c.split_sha256)
        names = [*PARTS, SYSTEM]
        checkpoint.write_manifest(
            self.out, names, preset=self.preset.name, protocol=c.protocol, commit=commit()
        )
        load(self.out)  # what was written is what can be read
        progress.write(**figures)

    def _assemble(self, names: Iterable[str]) -> MedFedPure:
        """The system with its parts `names` as trained so far, the others untrained."""
        system = build(self.preset.system).to(self.device)
        for name in names:
            part = checkpoint.load(self.out / name)
            if part.split_sha256 != self.corpus.split_sha256:
                raise checkpoint.WeightsError(
                    f"{self.out / name} was trained on another split: train it again"
                )
            try:
                system.get_submodule(PARTS[name]).load_state_dict(part.state_dict)
            except RuntimeError:
                raise checkpoint.WeightsError(
                    f"{self.out / name} does not have the preset's shape: train it again"
                ) from None
        return system

    def _classifier(
        self, name: str, model: MixtureOfExperts, phase: ClassifierPhase, shape: MoEConfig
    ) -> None:
        def validation(eps: float) -> ValidateFn:
            return classifier.validation(self.corpus.val, self.device, eps)

        if (
            phase.warmup.epochs
            and phase.loss.adv_eps
            and not (self.out / f"{name}.state").is_file()
        ):
            calm = classifier.loss_function(replace(phase.loss, adv_eps=0.0), phase.augment)
            self._run(f"{name}-warmup", model, phase.warmup, calm, validation(0.0))
        self._fit(
            name,
            model,
            phase.fit,
            classifier.loss_function(phase.loss, phase.augment),
            validation(PAPER_EPS if phase.loss.adv_eps else 0.0),
            asdict(shape),
        )

    def _fit(
        self,
        name: str,
        model: nn.Module,
        config: FitConfig,
        loss: LossFn,
        validate: ValidateFn,
        shape: dict[str, Any],
    ) -> None:
        self._run(name, model, config, loss, validate)
        save_part(model, self.out, f"{name}.safetensors", shape, self.corpus.split_sha256)

    def _run(
        self, name: str, model: nn.Module, config: FitConfig, loss: LossFn, validate: ValidateFn
    ) -> None:
        progress = self._progress(name)
        start = time.monotonic()
        history = fit(
            model,
            self.corpus.train,
            loss,
            replace(config, seed=config.seed + self.seed),
            validate=validate,
            checkpoint=self.out / f"{name}.state",
            settings=self._settings(name),
            report=progress.report,
            progress=progress,
            device=self.device,
        )
        for figures in history:
            progress.write(**figures)
        progress.write(
            seconds=round(time.monotonic() - start),
            threads=torch.get_num_threads(),
            fit=asdict(config),
        )

    def _settings(self, name: str) -> dict[str, Any]:
        """What a state on disk must share to go on: split, shape, and how the phase learns."""
        return {
            "split": self.corpus.split_sha256,
            "system": asdict(self.preset.system),
            "phase": asdict(getattr(self.preset, PHASE_OF[name])),
        }

    def _progress(self, title: str) -> Progress:
        return Progress(title, self.out / "log.jsonl")
