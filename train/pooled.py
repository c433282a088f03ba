"""Training on pooled scans: the phases of a preset and their weights files."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core import checkpoint
from core.pipeline import MedFedPure, build
from core.weights import PARTS, SYSTEM, load, save_part, save_system_file
from train import recipes
from train.calibration import calibrate as calibration
from train.config import Preset, check_fit
from train.data.corpus import Corpus
from train.device import pick_device
from train.phases import PHASES
from train.phases.classifier import ClassifierPhase
from train.phases.phase import Phase
from train.progress import Progress
from train.provenance import find_commit
from train.recipes import OPTIONAL_FILES
from train.trainer import fit


class Phases:
    """Phases of one preset on one corpus, written to one folder; each can be run again alone.

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

    def train(self, name: str) -> None:
        """Train a phase, after its warm-up without attacks if it has one, and write its file.

        Raises:
            WeightsError: a part that it needs is not trained yet, or on another split or in
                another shape.
            ValueError: the phase needs brain scans, and the preset does not read them.
        """
        phase = recipes.find_phase(name)
        if not phase.is_available(self.preset) and phase.is_optional:
            raise ValueError(
                f"preset {self.preset.name!r} reads no brain scans, which {name!r} needs"
            )
        model = recipes.build_network(phase, self.preset, self.seed)
        if phase.is_solved:
            self._solve(phase, model)
        else:
            self._learn(phase, model)
        shape = phase.stored_shape(self.preset)
        save_part(model, self.out, phase.file, shape, self.corpus.split_sha256)
        if phase.is_optional:
            self._update_manifest([phase.file], keep=True)

    def calibrate(self) -> None:
        """Calibrate the trained parts: temperatures, operating points, detector, manifest.

        Raises:
            WeightsError: a part is not trained yet, or on another split or in another shape.
        """
        progress = self._open_progress("calibrate")
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
        save_system_file(system, self.out, c.split_sha256)
        self._update_manifest(
            [*PARTS, SYSTEM, *(n for n in OPTIONAL_FILES.values() if (self.out / n).is_file())]
        )
        load(self.out)  # checks that the weights can be read
        progress.write(**figures)

    def _update_manifest(self, names: Iterable[str], *, keep: bool = False) -> None:
        checkpoint.write_manifest(
            self.out, names, preset=self.preset.name, protocol=self.corpus.protocol,
            commit=find_commit(), keep=keep,
        )  # fmt: skip

    def _assemble(self, names: Iterable[str]) -> MedFedPure:
        """Return the system with the trained parts `names`; the others are untrained."""
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

    def _solve(self, phase: Phase, model: nn.Module) -> None:
        progress = self._open_progress(phase.name)
        model.to(self.device)
        if phase.solver is None or not phase.is_available(self.preset):
            progress.report("not trained for pictures of this shape: the network stays unchanged")
            return
        settings, corpus = phase.settings(self.preset), self.corpus
        solver = phase.solver(settings, corpus.val, self.device, self._assemble)
        progress.report("solving in closed form")
        solver.solve(model, corpus.train, seed=self.seed + PHASES.index(phase))
        figures = solver.validate(model)
        progress.report(f"validation score {figures['score']:.3f}")
        progress.write(**figures)

    def _learn(self, phase: Phase, model: nn.Module) -> None:
        name, settings = Path(phase.file).stem, phase.settings(self.preset)
        if (
            isinstance(settings, ClassifierPhase)
            and settings.warmup.epochs
            and settings.loss.adv_eps
            and not (self.out / f"{name}.state").is_file()
        ):
            self._fit(f"{name}-warmup", phase, model, calm=True)
        self._fit(name, phase, model)

    def _fit(self, name: str, phase: Phase, model: nn.Module, *, calm: bool = False) -> None:
        """Fit the phase; resume from a state of this name."""
        learn = recipes.build_recipe(
            phase, self.preset, self.corpus, self.device, self._assemble, calm=calm
        )
        config, progress = learn.fit, self._open_progress(name)
        start = time.monotonic()
        history = fit(
            model,
            self.corpus.train,
            learn.loss,
            replace(config, seed=config.seed + self.seed),
            validate=learn.validate,
            checkpoint=self.out / f"{name}.state",
            settings=self._build_settings(phase),
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

    def _build_settings(self, phase: Phase) -> dict[str, Any]:
        """Return the settings that a state on disk must share to be resumed."""
        return {
            "split": self.corpus.split_sha256,
            "system": asdict(self.preset.system),
            "phase": asdict(phase.settings(self.preset)),
        }

    def _open_progress(self, title: str) -> Progress:
        return Progress(title, self.out / "log.jsonl")
