"""The phases of training on pooled data: what each one fits, on which scans, and what it writes."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core import checkpoint
from core.diffusion import Diffusion
from core.mae import MaskedAutoencoder
from core.moe import MixtureOfExperts, MoEConfig
from core.pipeline import build
from core.system import PARTS, SYSTEM, load, save_part, save_ties
from core.unet import UNet
from train import calibrate as calibration
from train import classifier, diffusion, mae
from train.config import ClassifierPhase, Preset
from train.data import find_records, load_scans
from train.progress import Progress
from train.split import Manifest
from train.task import Data, FitConfig, LossFn, ValidateFn, balanced_weights, fit, pick_device

PAPER_EPS = 0.015


@dataclass(frozen=True)
class Corpus:
    """Training and validation scans of one protocol; `cells` are source and label of each scan."""

    train: Data
    train_cells: list[str]
    val: Data
    val_cells: list[str]
    split_sha256: str
    protocol: str


def load_corpus(manifest: Manifest, root: Path, cache: Path | None) -> Corpus:
    """Reads the scans of the training and validation folds; nothing else is opened for learning."""
    records = find_records(root, sorted({e.source for e in manifest.entries}))
    scans = load_scans(root, records, cache)
    where = {r.file: i for i, r in enumerate(records)}

    def fold(name: str) -> tuple[Data, list[str]]:
        entries = [manifest.entries[i] for i in manifest.fold(name)]
        cells = [f"{e.source}/{e.record.label}" for e in entries]
        return Data(
            np.ascontiguousarray(scans[[where[e.file] for e in entries]]),
            torch.tensor([e.record.label for e in entries]),
            balanced_weights(cells, [e.group for e in entries]),
        ), cells

    train, train_cells = fold("train")
    val, val_cells = fold("val")
    return Corpus(train, train_cells, val, val_cells, manifest.sha256, manifest.protocol)


class Phases:
    """Runs phases of one preset on one corpus, writing into one folder; every one can be run again alone."""

    def __init__(self, preset: Preset, corpus: Corpus, out: Path, seed: int = 0) -> None:
        self.preset = preset
        self.corpus = corpus
        self.out = out
        self.seed = seed
        self.device = pick_device()

    def mixture(self) -> None:
        """The adversarially trained mixture, after a warm-up without attacks if the preset asks for one."""
        torch.manual_seed(self.seed)
        model = MixtureOfExperts(self.preset.system.moe)
        self._classifier("classifier", model, self.preset.classifier, self.preset.system.moe)

    def plain(self) -> None:
        """The plain mixture: what 'undefended' means."""
        torch.manual_seed(self.seed + 1)
        model = MixtureOfExperts(self.preset.system.plain)
        self._classifier("plain", model, self.preset.plain, self.preset.system.plain)

    def diffusion(self) -> None:
        """Phase 1 of the paper."""
        torch.manual_seed(self.seed + 2)
        phase, schedule = self.preset.diffusion, Diffusion().to(self.device)
        self._fit(
            "diffusion",
            UNet(self.preset.system.unet),
            phase.fit,
            diffusion.loss_function(phase.loss, phase.augment, schedule),
            diffusion.validation(self.corpus.val, schedule, phase.loss, self.device),
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

    def calibrate(self) -> None:
        """Ties the trained parts together: temperatures, operating points, detector, tau; then the manifest."""
        progress = self._progress("calibrate")
        system = build(self.preset.system)
        for name, place in PARTS.items():
            part = checkpoint.load(self.out / name)
            if part.split_sha256 != self.corpus.split_sha256:
                raise checkpoint.WeightsError(
                    f"{self.out / name} was trained on another split: train it again"
                )
            system.get_submodule(place).load_state_dict(part.state_dict)
        c = self.corpus
        figures = calibration.calibrate(
            system, c.train, c.val, c.val_cells, self.preset.calibrate, progress.report
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
            self.out, names, preset=self.preset.name, protocol=c.protocol, commit=_commit()
        )
        load(self.out)  # what was written is what can be read
        progress.write(**figures)

    def _classifier(
        self, name: str, model: MixtureOfExperts, phase: ClassifierPhase, shape: MoEConfig
    ) -> None:
        validate = classifier.validation(
            self.corpus.val, self.corpus.val_cells, self.device, PAPER_EPS
        )
        if (
            phase.warmup.epochs
            and phase.loss.adv_eps
            and not (self.out / f"{name}.state").is_file()
        ):
            calm = classifier.loss_function(replace(phase.loss, adv_eps=0.0), phase.augment)
            self._run(f"{name}-warmup", model, phase.warmup, calm, validate)
        self._fit(
            name,
            model,
            phase.fit,
            classifier.loss_function(phase.loss, phase.augment),
            validate,
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

    def _progress(self, title: str) -> Progress:
        return Progress(title, self.out / "log.jsonl")


def _commit() -> str:
    """The commit that the code is at, 'unknown' outside a checkout."""
    where = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=where,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return found.stdout.strip() or "unknown"
