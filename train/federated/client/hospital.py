"""A hospital in a round: trains on its scans, keeps its attention, reports metrics.

No transport in here: tensors by name come in and go out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from core.checkpoint import WeightsError
from core.moe import ClientGate, MixtureOfExperts
from core.novelty import Novelty
from core.pipeline import MedFedPure, build
from core.weights import PARTS, load
from train.config import Preset, check_fit
from train.data.corpus import Corpus
from train.data.dataset import ScanDataset
from train.device import pick_device
from train.federated.client import batch_norm
from train.federated.client.adversarial_cache import attack_training_scans
from train.federated.client.fedprox import add_proximal_term
from train.federated.client.local_state import ClientState
from train.federated.client.purify_training_scans import purify_training_scans
from train.federated.experiment import Experiment
from train.federated.metrics import SCAN_COUNT
from train.federated.state_file import StateError
from train.federated.warm_start import WarmStart
from train.phases.fedem import estimate_mixture_weights
from train.phases.phase import Recipe, Solver
from train.recipes import FILES, build_recipe, list_phases
from train.trainer import FitConfig, fit

State = Mapping[str, Tensor]
SEED_STRIDE = 10_000  # clients and rounds that get different seeds
MAX_REFUSED_SHARE = 0.1  # of validation scans: reject an OOD head that refuses more


class Hospital:
    """Client number `client` with its own scans; its personal tensors are stored in `folder` alone.

    It starts from `start`, its tensors of an earlier training, or from initial weights.

    Raises:
        ValueError: the preset's networks do not fit the scans, or the scans are fewer than a batch.
    """

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        client: int,
        folder: Path,
        defence: MedFedPure | None = None,
        start: WarmStart | None = None,
    ) -> None:
        check_fit(experiment.preset, corpus)
        if (batch := experiment.batch_size) > (n := len(corpus.train)):
            raise ValueError(f"{n} training scans are fewer than a batch of {batch}")
        self.experiment = experiment
        self.client = client
        self.start = start or WarmStart({}, "")
        self.local_state = ClientState(folder, experiment, client)
        self.device = pick_device()
        if defence is not None:
            corpus = replace(corpus, train=purify_training_scans(corpus.train, defence))
        self.corpus = corpus

    @cached_property
    def spec(self) -> dict[str, Tensor]:
        """Names, shapes and dtypes of the shared tensors, on the meta device."""
        shared = self.experiment.select_shared(self.experiment.build_model())
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
        """Train one round's local epochs from the shared and the personal tensors (Eq. 9).

        An out-of-distribution head is solved in closed form instead.
        A client that has not joined yet has no attention: after the first round it adapts one to
        the experts before it trains. The personal tensors of round `best` are kept too.
        `span` is the round's part of the learning rate's schedule, `adv_share` the share of
        adversarial examples if it differs from the preset's.

        Returns:
            The shared tensors, and metrics: 'loss' and the number of training scans.

        Raises:
            StateError: the attention of an earlier round is lost.
            FloatingPointError: the loss is not a number.
        """
        config, model = self.experiment.config, self._build_model(shared)
        before = self.local_state.find_latest(round_index - 1) if has_joined else 0
        if has_joined:
            self._load_personal(model, before)
        else:
            self.local_state.clear()  # of a run that this server does not continue
            model.load_state_dict(self.start.personal, strict=False)
            if round_index > 1:
                self._adapt(model, shared, round_index, span)
        if isinstance(model, Novelty):
            loss = self._solver.solve(model, self.corpus.train, self._compute_seed(round_index))
        else:
            self._prepare(model, batch_norm.BN_SCANS_TRAIN)
            recipe, data = self._choose_recipe(model, round_index, adv_share)
            if config.strategy.proximal_mu:
                loss_fn = add_proximal_term(recipe.loss, dict(shared), config.strategy.proximal_mu)
                recipe = replace(recipe, loss=loss_fn)
            loss = self._fit(model, data, recipe, round_index, config.local_epochs, span)
        self.local_state.write(round_index, self.experiment.select_personal(model))
        self.local_state.keep_rounds({round_index, before, self.local_state.find_nearest(best)})
        return _copy_to_cpu(self.experiment.select_shared(model)), {
            "loss": loss,
            SCAN_COUNT: len(self.corpus.train),
        }

    def evaluate(
        self, shared: State, round_index: int, *, finish: bool = False
    ) -> dict[str, float]:
        """Return validation metrics of the shared tensors with the personal ones of a round.

        With `finish` the whole network is written: the phase has ended, other phases may need it.

        Raises:
            StateError: the personal tensors are lost, or an out-of-distribution head refuses too
                many of the validation scans.
        """
        model = self._build_model(shared)
        self._load_personal(model, self.local_state.find_nearest(round_index))
        self._prepare(model, batch_norm.BN_SCANS_EVAL)
        if isinstance(model, Novelty):
            figures = self._solver.validate(model)
            if figures["val_refused"] > MAX_REFUSED_SHARE:
                share = f"{figures['val_refused']:.0%} of client {self.client}'s validation scans"
                raise StateError(f"the head would refuse {share}: it is not kept")
        else:
            figures = self._recipe.validate(model.eval())
        if finish:
            self.local_state.write_finished(model.state_dict())
        return {**figures, SCAN_COUNT: len(self.corpus.val)}

    def build_system(self, files: Iterable[str] = tuple(FILES.values())) -> MedFedPure:
        """Return the system with this hospital's finished parts; parts not named are untrained.

        A part whose phase has not begun is that of the weights that the hospital starts from.

        Raises:
            StateError: this hospital has not finished a part's phase.
            WeightsError: the weights that it starts from hold another network.
        """
        preset, folder, before = self.experiment.preset, self.start.folder, None
        system = build(preset.system).to(self.device)
        for phase in list_phases(preset):
            if (file := FILES[phase]) not in files:
                continue
            part = system.get_submodule(PARTS[file])
            if folder is None or self.local_state.has_begun(phase):
                state = self.local_state.read_finished(replace(self.experiment, phase=phase))
                part.load_state_dict(state)
                continue
            before = before or load(folder, self.device, hospital=self.client + 1)
            try:
                part.load_state_dict(before.get_submodule(PARTS[file]).state_dict())
            except (AttributeError, RuntimeError):
                raise WeightsError(
                    f"{folder / file} holds another network than preset {preset.name!r} trains"
                ) from None
        return system

    @cached_property
    def _recipe(self) -> Recipe:
        return self._build_recipe(self.experiment.preset)

    def _build_recipe(self, preset: Preset, *, calm: bool = False) -> Recipe:
        phase = self.experiment.step
        return build_recipe(phase, preset, self.corpus, self.device, self.build_system, calm=calm)

    @cached_property
    def _solver(self) -> Solver:
        phase = self.experiment.step
        assert phase.solver is not None
        settings = phase.settings(self.experiment.preset)
        return phase.solver(settings, self.corpus.val, self.device, self.build_system)

    def _choose_recipe(
        self, model: nn.Module, round_index: int, adv_share: float | None
    ) -> tuple[Recipe, ScanDataset]:
        """Return the loss settings and the training scans of this round."""
        config, preset = self.experiment.config, self.experiment.preset
        loss = preset.classifier.loss
        if not self.experiment.step.is_adversarial or not loss.adv_eps:
            return self._recipe, self.corpus.train
        if round_index <= config.calm_rounds:
            return self._build_recipe(preset, calm=True), self.corpus.train
        if adv_share is not None:
            loss = replace(loss, adv_clean=1 - adv_share)
        data = self.corpus.train
        if config.refresh_every:
            assert isinstance(model, MixtureOfExperts)
            since = round_index - (round_index - config.calm_rounds - 1) % config.refresh_every
            path = self.local_state.adversarial_cache(since)
            data = attack_training_scans(model, data, loss, self._compute_seed(since), path)
            loss = replace(loss, adv_eps=0.0)
        trained = preset.override(classifier=replace(preset.classifier, loss=loss))
        return replace(self._recipe, loss=self._build_recipe(trained).loss), data

    def _build_model(self, shared: State) -> nn.Module:
        model = self.experiment.build_model()
        model.load_state_dict({**self.experiment.select_personal(model), **shared})
        return model.to(self.device)

    def _load_personal(self, model: nn.Module, round_index: int) -> None:
        """Load the personal tensors of a round, if the phase has any."""
        if not self.experiment.is_all_shared:
            model.load_state_dict(self.local_state.read(round_index), strict=False)

    def _prepare(self, model: nn.Module, scans: int) -> None:
        """Set batch-norm statistics and EM weights from the client's scans, without a gradient."""
        if self.experiment.config.batch_norm == "silo" and self.spec:
            batch_norm.measure_statistics(
                model, self.corpus.train.thin(scans, truncate=True), self.device
            )
        if isinstance(model, MixtureOfExperts) and isinstance(model.attention, ClientGate):
            weights = estimate_mixture_weights(model, self.corpus.train, self.device)
            model.attention.set_weights(weights)

    def _adapt(
        self, model: nn.Module, shared: State, round_index: int, span: tuple[float, float]
    ) -> None:
        """Train the attention of a late client on fixed experts."""
        self._prepare(model, batch_norm.BN_SCANS_TRAIN)
        parameters = dict(model.named_parameters())
        own = parameters.keys() - shared.keys()
        if not own or self.experiment.preset.classifier.loss.objective == "em":
            return  # no personal parameter, or none trained by a gradient
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
        recipe: Recipe,
        round_index: int,
        epochs: int,
        span: tuple[float, float],
    ) -> float:
        """Train in place; return the last epoch's mean loss."""
        config: FitConfig = replace(
            recipe.fit, epochs=epochs, ema=0.0, patience=0, seed=self._compute_seed(round_index)
        )
        history = fit(
            model,
            data,
            recipe.loss,
            config,
            validate=lambda _: {"score": 0.0},  # the last epoch is what the server averages
            report=lambda _: None,
            device=self.device,
            span=span,
        )
        return history[-1]["loss"]

    def _compute_seed(self, round_index: int) -> int:
        return (self.experiment.seed * SEED_STRIDE + round_index) * SEED_STRIDE + self.client


def _copy_to_cpu(tensors: State) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
