"""A hospital's part of a round: train on its scans, keep its attention, report metrics.

No transport in here: tensors by name come in and go out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from core.moe import ClientGate, MixtureOfExperts
from core.novelty import Novelty
from core.pipeline import MedFedPure, build
from core.weights import PARTS
from train.config import Preset, check_fit
from train.data.corpus import Corpus
from train.data.dataset import ScanDataset
from train.device import pick_device
from train.federated.client import batch_norm, replaced_scans
from train.federated.client.fedprox import proximal
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment
from train.federated.state_file import StateError
from train.federated.warm_start import Start
from train.phases.fedem import mixture_weights
from train.phases.phase import Recipe, Solver
from train.recipes import FILES, build_recipe, phases_of
from train.trainer import FitConfig, fit

State = Mapping[str, Tensor]
ROUND_SEEDS = 10_000  # clients and rounds that have seeds of their own
MOST_REFUSED = 0.1  # of validation scans: a head that says 'cannot judge' of more is spoilt


class Hospital:
    """Client number `client` with its own scans; its personal state lies in `folder` alone.

    It goes on from `start`, what it kept of an earlier training, or from fresh numbers.

    Raises:
        ValueError: the preset's networks do not fit the scans, or they are fewer than a batch.
    """

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        client: int,
        folder: Path,
        defence: MedFedPure | None = None,
        start: Start | None = None,
    ) -> None:
        check_fit(experiment.preset, corpus)
        if (batch := experiment.batch_size) > (n := len(corpus.train)):
            raise ValueError(f"{n} training scans are fewer than a batch of {batch}")
        self.experiment = experiment
        self.client = client
        self.start = start or Start({}, "")
        self.state = ClientState(folder, experiment, client)
        self.device = pick_device()
        if defence is not None:
            corpus = replace(corpus, train=replaced_scans.purified(corpus.train, defence))
        self.corpus = corpus

    @cached_property
    def like(self) -> dict[str, Tensor]:
        """Names, shapes and dtypes of the shared tensors, without the numbers."""
        shared = self.experiment.shared(self.experiment.model())
        return {name: value.to("meta") for name, value in shared.items()}

    def train(
        self,
        shared: State,
        round_index: int,
        *,
        has_joined: bool,
        best: int = 0,
        span: tuple[float, float] = (0.0, 1.0),
        adv_share: float | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Train the local epochs of a round from the shared tensors and the client's own (Eq. 9).

        A head for 'cannot judge' is solved instead, whatever arrives.
        A client that has not joined yet has no attention of its own: past the first round it
        adapts one to the experts before it trains. What is personal in round `best` is kept too.
        `span` is the round's part of the learning rate's schedule, `adv_share` the share of
        attacked scans where it is not the preset's.

        Returns:
            What is shared, and figures: 'loss' and the number of training scans.

        Raises:
            StateError: the attention of an earlier round is lost.
            FloatingPointError: the loss is not a number.
        """
        config, model = self.experiment.config, self._model(shared)
        before = self.state.latest(round_index - 1) if has_joined else 0
        if has_joined:
            self._add_own(model, before)
        else:
            self.state.clear()  # of a run that the server knows nothing of
            model.load_state_dict(self.start.own, strict=False)
            if round_index > 1:
                self._adapt(model, shared, round_index, span)
        if isinstance(model, Novelty):
            loss = self._solver.solve(model, self.corpus.train, self._seed(round_index))
        else:
            self._prepare(model, batch_norm.FEW)
            learn, data = self._lesson(model, round_index, adv_share)
            if config.strategy.proximal_mu:
                loss_fn = proximal(learn.loss, dict(shared), config.strategy.proximal_mu)
                learn = replace(learn, loss=loss_fn)
            loss = self._fit(model, data, learn, round_index, config.local_epochs, span)
        self.state.write(round_index, self.experiment.personal(model))
        self.state.keep_only({round_index, before, self.state.nearest(best)})
        return _on_cpu(self.experiment.shared(model)), {
            "loss": loss,
            "num-examples": len(self.corpus.train),
        }

    def evaluate(
        self, shared: State, round_index: int, *, finish: bool = False
    ) -> dict[str, float]:
        """Measure the shared tensors with the client's own of a round on validation scans.

        With `finish` the network is kept whole: the phase has ended, others may build on it.

        Raises:
            StateError: the client's own is lost, or a head for 'cannot judge' refuses its scans.
        """
        model = self._model(shared)
        self._add_own(model, self.state.nearest(round_index))
        self._prepare(model, batch_norm.MANY)
        if isinstance(model, Novelty):
            figures = self._solver.validate(model)
            if figures["val_refused"] > MOST_REFUSED:
                share = f"{figures['val_refused']:.0%} of client {self.client}'s validation scans"
                raise StateError(f"the head would refuse {share}: it is not kept")
        else:
            figures = self._recipe.validate(model.eval())
        if finish:
            self.state.finish(model.state_dict())
        return {**figures, "num-examples": len(self.corpus.val)}

    def system(self, files: Iterable[str] = tuple(FILES.values())) -> MedFedPure:
        """Build the system with the named parts as finished here, the others untrained.

        Raises:
            StateError: a part's phase has not ended here yet.
        """
        preset = self.experiment.preset
        system = build(preset.system).to(self.device)
        for phase in phases_of(preset):
            if (file := FILES[phase]) in files:
                state = self.state.finished(replace(self.experiment, phase=phase))
                system.get_submodule(PARTS[file]).load_state_dict(state)
        return system

    @cached_property
    def _recipe(self) -> Recipe:
        return self._recipe_of(self.experiment.preset)

    def _recipe_of(self, preset: Preset, *, calm: bool = False) -> Recipe:
        phase = self.experiment.step
        return build_recipe(phase, preset, self.corpus, self.device, self.system, calm=calm)

    @cached_property
    def _solver(self) -> Solver:
        phase = self.experiment.step
        assert phase.solver is not None
        settings = phase.settings(self.experiment.preset)
        return phase.solver(settings, self.corpus.val, self.device, self.system)

    def _lesson(
        self, model: nn.Module, round_index: int, adv_share: float | None
    ) -> tuple[Recipe, ScanDataset]:
        """Return the recipe and the training scans of this round."""
        config, preset = self.experiment.config, self.experiment.preset
        loss = preset.classifier.loss
        if not self.experiment.step.is_adversarial or not loss.adv_eps:
            return self._recipe, self.corpus.train
        if round_index <= config.calm_rounds:
            return self._recipe_of(preset, calm=True), self.corpus.train
        if adv_share is not None:
            loss = replace(loss, adv_clean=1 - adv_share)
        data = self.corpus.train
        if config.refresh_every:
            assert isinstance(model, MixtureOfExperts)
            since = round_index - (round_index - config.calm_rounds - 1) % config.refresh_every
            path = self.state.attacked(since)
            data = replaced_scans.attacked(model, data, loss, self._seed(since), path)
            loss = replace(loss, adv_eps=0.0)
        learns = preset.override(classifier=replace(preset.classifier, loss=loss))
        return replace(self._recipe, loss=self._recipe_of(learns).loss), data

    def _model(self, shared: State) -> nn.Module:
        model = self.experiment.model()
        model.load_state_dict({**self.experiment.personal(model), **shared})
        return model.to(self.device)

    def _add_own(self, model: nn.Module, round_index: int) -> None:
        """Add the client's personal tensors of a round, where it keeps any."""
        if not self.experiment.is_all_shared:
            model.load_state_dict(self.state.read(round_index), strict=False)

    def _prepare(self, model: nn.Module, scans: int) -> None:
        """Fit a model that has just arrived to the client's scans, without a gradient."""
        if self.experiment.config.batch_norm == "silo" and self.like:
            batch_norm.measure(model, self.corpus.train.thin(scans, truncate=True), self.device)
        if isinstance(model, MixtureOfExperts) and isinstance(model.attention, ClientGate):
            weights = mixture_weights(model, self.corpus.train, self.device)
            model.attention.set_weights(weights)

    def _adapt(
        self, model: nn.Module, shared: State, round_index: int, span: tuple[float, float]
    ) -> None:
        """Fit a late client's attention to the experts, which do not change."""
        self._prepare(model, batch_norm.FEW)
        parameters = dict(model.named_parameters())
        own = parameters.keys() - shared.keys()
        if not own or self.experiment.preset.classifier.loss.objective == "em":
            return  # nothing to learn, or nothing that a gradient teaches
        for name in parameters.keys() & shared.keys():
            parameters[name].requires_grad_(False)
        self._fit(model, self.corpus.train, self._recipe, round_index, 1, span)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        model.load_state_dict(dict(shared), strict=False)  # shared statistics have moved

    def _fit(
        self,
        model: nn.Module,
        data: ScanDataset,
        learn: Recipe,
        round_index: int,
        epochs: int,
        span: tuple[float, float],
    ) -> float:
        """Trains in place; returns the last epoch's mean loss."""
        config: FitConfig = replace(
            learn.fit, epochs=epochs, ema=0.0, patience=0, seed=self._seed(round_index)
        )
        history = fit(
            model,
            data,
            learn.loss,
            config,
            validate=lambda _: {"score": 0.0},  # the last epoch is what the server averages
            report=lambda _: None,
            device=self.device,
            span=span,
        )
        return history[-1]["loss"]

    def _seed(self, round_index: int) -> int:
        return (self.experiment.seed * ROUND_SEEDS + round_index) * ROUND_SEEDS + self.client


def _on_cpu(tensors: State) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
