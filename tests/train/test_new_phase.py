"""A new training phase is one file and one line; everything else derives from its object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# a phase as CONTRIBUTING describes it, registered by one line before anything derives from it
PROGRAM = """
import sys
from dataclasses import dataclass, field

import torch
from torch import nn

import train.phases as phases
from train.phases.phase import Phase, Recipe
from train.trainer import FitConfig


@dataclass(frozen=True)
class MeanPhase:
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=1, batch_size=8))


class Mean(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(1))


def build(settings, corpus, device, system, calm):
    def loss(model, sample, generator):
        return (sample.x.mean() - model.level).square().sum()

    return Recipe(settings.fit, loss, lambda model: {"score": float(model.level)})


PHASE = Phase(
    name="mean", file="mean.safetensors", help="the mean level of all scans", config=MeanPhase,
    shape=lambda preset: 1, network=Mean, recipe=build, is_optional=True,
)
phases.PHASES += (PHASE,)

from train.__main__ import main
from train.config import read_preset
from train.federated.experiment import read_experiment

assert read_preset("smoke").mean.fit.epochs == 1
assert read_preset("smoke").federated.rounds.mean == 0
assert read_experiment("smoke", "folder", 0, "mean").build_model().level.shape == (1,)
try:
    main(["--help"])
except SystemExit:
    sys.exit(main(sys.argv[1:]))
"""


def test_it_is_in_the_help_and_can_be_trained(brain_folder, tmp_path):
    out, data = tmp_path / "out", brain_folder(6) / "br35h"
    arguments = ["mean", "--preset=smoke", "--protocol=folder", f"--data={data}", f"--out={out}"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, f"--cache={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = " ".join(done.stdout.split())  # the width of the columns is the terminal's
    assert " mean the mean level of all scans " in words, done.stderr
    assert done.returncode == 0, done.stderr
    assert (out / "mean.safetensors").is_file()
    assert "mean.safetensors" in (out / "manifest.json").read_text(encoding="utf-8")
