"""Updates as the server sees them: one gradient, one step, a round, or a sum of rounds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from train.data.corpus import Corpus
from train.data.dataset import ScanDataset
from train.federated.client.policy import Policy
from train.federated.experiment import Experiment
from train.phases.phase import Recipe, SystemFn
from train.recipes import build_recipe
from train.trainer import draw_rows, fit

LONG = 15  # local epochs E of the paper
HOSPITALS = 3  # whose updates are summed under secure aggregation
POLICY = Policy(clip=1.0, noise=0.01)
_CPU = torch.device("cpu")
SEED_STRIDE = 1000  # more than the hospitals and targets that have a seed of their own
MIDDLE = 0.5  # of the learning rate's schedule


@dataclass(frozen=True)
class Level:
    """Amount that is mixed into what the server sees.

    `scans` 0 is a round's number of the preset: `epochs` of these. Else it is one step on `scans`,
    or the gradient of them as they are.
    """

    meaning: str
    scans: int = 0
    is_gradient: bool = False
    epochs: int = 1
    hospitals: int = 1
    has_policy: bool = False


LEVELS = {
    "L0": Level("the gradient of one scan, nothing augmented", 1, is_gradient=True),
    "L1": Level("one step of training on one scan", 1),
    "L2": Level("one step of training on 16 scans", 16),
    "L3": Level("a round as the preset trains"),
    "L4": Level(f"a round of {LONG} local epochs", epochs=LONG),
    "L5, SecAgg": Level(f"the mean of {HOSPITALS} hospitals' rounds", hospitals=HOSPITALS),
    "L5, policy": Level(
        f"a round, clipped to {POLICY.clip:g}, with noise {POLICY.noise:g}", has_policy=True
    ),
}


@dataclass(frozen=True)
class PhaseUnderAudit:
    """A phase of a federation, its network as it is before the round, and how it learns."""

    experiment: Experiment
    model: nn.Module
    recipe: Recipe

    @property
    def shared(self) -> dict[str, Tensor]:
        """Tensors that are sent, before the round."""
        return self.experiment.select_shared(self.model)

    @property
    def names(self) -> list[str]:
        """Names of the parameters that are sent: what an attacker can differentiate."""
        sent = self.shared.keys()
        return [name for name, _ in self.model.named_parameters() if name in sent]

    @property
    def round_scans(self) -> int:
        """Number of scans that a hospital learns from in a round."""
        return self.recipe.fit.samples


def open_phase(
    experiment: Experiment, model: nn.Module, corpus: Corpus, system: SystemFn
) -> PhaseUnderAudit:
    """Open a phase with the network that the round starts from."""
    recipe = build_recipe(experiment.step, experiment.preset, corpus, _CPU, system)
    return PhaseUnderAudit(experiment, model.eval(), recipe)


def send(
    phase: PhaseUnderAudit, level: Level, parts: Sequence[ScanDataset], seed: int
) -> dict[str, Tensor]:
    """Return what the server sees of the parameters: a gradient, or the change of a round, negated.

    `parts` are the scans of each hospital that learns; the first one's first scan is the target,
    which is drawn at least once.
    """
    if level.is_gradient:
        raise ValueError("a gradient has a loss of its own: see `bench.audits.rebuild`")
    old = {name: value.clone() for name, value in phase.shared.items()}
    changes = []
    for number, part in enumerate(parts):
        new = _train(phase, level, part, seed + number)
        if level.has_policy:
            torch.manual_seed(seed)
            new = POLICY.apply(new, old)
        changes.append({name: new[name] - old[name] for name in phase.names})
    return {
        name: -torch.stack([change[name] for change in changes]).mean(0) for name in phase.names
    }


def _train(
    phase: PhaseUnderAudit, level: Level, part: ScanDataset, seed: int
) -> Mapping[str, Tensor]:
    model = copy.deepcopy(phase.model)
    usual = phase.recipe.fit
    config = replace(
        usual, epochs=level.epochs, samples=len(part), ema=0.0, patience=0, seed=seed,
        batch_size=min(usual.batch_size if not level.scans else level.scans, len(part)),
    )  # fmt: skip
    steps = max(1, len(part) // config.batch_size) * level.epochs
    while all((draw_rows(part.weights, config, step)[0] > 0).all() for step in range(steps)):
        config = replace(config, seed=config.seed + SEED_STRIDE)  # the first scan was not drawn
    fit(
        model, part, phase.recipe.loss, config, validate=lambda _: {"score": 0.0},
        report=lambda _: None, device=_CPU, span=(MIDDLE, MIDDLE + 1e-3),
    )  # fmt: skip
    return phase.experiment.select_shared(model)
