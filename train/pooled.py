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
from core.novelty import Novelty
from core.pipeline import MedFedPure, build
from core.weights import PARTS, SYSTEM, load, save_part, save_system_file
from train import recipes
from train.calibration import calibrate as calibration
from train.config import Preset, check_fit
from train.data.corpus import Corpus
from train.device import pick_device
from train.phases.novelty import Solver
from train.progress import Progress
from train.provenance import commit
from train.recipes import ALL_FILES, BESIDE, FILES
from train.trainer import fit


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
        self._classifier("mixture")

    def plain(self) -> None:
        """The plain classifier: what 'undefended' means."""
        self._classifier("plain")

    def diffusion(self) -> None:
        """Phase 1 of the paper.

        Raises:
            WeightsError: it learns from attacks, and a classifier is not trained yet, or on another
                split or in another shape.
        """
        self._learn("diffusion")

    def mae(self) -> None:
        """Phase 2 of the paper."""
        self._learn("mae")

    def detector(self) -> None:
        """The detector's residual network, against attacks on the two trained classifiers.

        Raises:
            WeightsError: a classifier is not trained yet, or on another split or in another shape.
        """
        self._learn("detector")

    def novelty(self) -> None:
        """The head that says where the system cannot judge: of brain MRI alone, others get none.

        Raises:
            WeightsError: the autoencoder is not trained yet, or on another split or in another
                shape.
        """
        progress, c = self._progress("novelty"), self.corpus
        head = Novelty(self.preset.system.mae.embed_dim).to(self.device)
        if "novelty" in recipes.phases_of(self.preset):
            mae = self._assemble([recipes.MAE]).detector.mae
            solver = Solver(mae, c.val, self.preset.novelty, self.device)
            progress.report("drawing pictures that are no brain MRI")
            solver.solve(head, c.train, seed=self.seed + 5)
            figures = solver.validate(head)
            progress.report(f"{figures['score']:.3f} of scans and new drawings told apart")
            progress.write(**figures)
        else:
            progress.report("no pictures are drawn for this shape: everything will be judged")
        save_part(head, self.out, FILES["novelty"], {}, c.split_sha256)

    def smoothed(self) -> None:
        """The reader that gives certificates: beside the system, in the same folder.

        Raises:
            ValueError: the preset does not read brain scans.
        """
        if "smoothed" not in recipes.phases_beside(self.preset):
            raise ValueError(f"preset {self.preset.name!r} reads no brain scans: none is certified")
        self._learn("smoothed")
        self._list(BESIDE.values(), keep=True)

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
        save_system_file(system, self.out, c.split_sha256)
        self._list([*PARTS, SYSTEM, *(n for n in BESIDE.values() if (self.out / n).is_file())])
        load(self.out)  # what was written is what can be read
        progress.write(**figures)

    def _list(self, names: Iterable[str], *, keep: bool = False) -> None:
        checkpoint.write_manifest(
            self.out, names, preset=self.preset.name, protocol=self.corpus.protocol,
            commit=commit(), keep=keep,
        )  # fmt: skip

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

    def _classifier(self, phase: str) -> None:
        learns = recipes.settings(phase, self.preset)
        model = recipes.network(phase, self.preset, self.seed)
        name = Path(FILES[phase]).stem
        if (
            learns.warmup.epochs
            and learns.loss.adv_eps
            and not (self.out / f"{name}.state").is_file()
        ):
            self._run(f"{name}-warmup", phase, model, calm=True)
        self._learn(phase, model)

    def _learn(self, phase: str, model: nn.Module | None = None) -> None:
        model = model or recipes.network(phase, self.preset, self.seed)
        self._run(Path(ALL_FILES[phase]).stem, phase, model)
        shape = asdict(recipes.shape(phase, self.preset))
        save_part(model, self.out, ALL_FILES[phase], shape, self.corpus.split_sha256)

    def _run(self, name: str, phase: str, model: nn.Module, *, calm: bool = False) -> None:
        """Fits, with a state of this name on the disk to go on from."""
        learn = recipes.recipe(
            phase, self.preset, self.corpus, self.device, self._assemble, calm=calm
        )
        config, progress = learn.fit, self._progress(name)
        start = time.monotonic()
        history = fit(
            model,
            self.corpus.train,
            learn.loss,
            replace(config, seed=config.seed + self.seed),
            validate=learn.validate,
            checkpoint=self.out / f"{name}.state",
            settings=self._settings(phase),
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

    def _settings(self, phase: str) -> dict[str, Any]:
        """What a state on disk must share to go on: split, shape, and how the phase learns."""
        return {
            "split": self.corpus.split_sha256,
            "system": asdict(self.preset.system),
            "phase": asdict(recipes.settings(phase, self.preset)),
        }

    def _progress(self, title: str) -> Progress:
        return Progress(title, self.out / "log.jsonl")
