"""What one hospital does in a round: learn from its scans, keep its attention, report figures.

No transport in here: tensors by name come in and go out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from core.moe import MixtureOfExperts
from train import classifier
from train.corpus import Corpus
from train.device import pick_device
from train.federated import state
from train.federated.experiment import Experiment
from train.federated.state import StateError
from train.task import FitConfig, LossFn, fit

State = Mapping[str, Tensor]


class Hospital:
    """Client number `client` with its own scans; what is personal lies in `folder` alone."""

    def __init__(self, experiment: Experiment, corpus: Corpus, client: int, folder: Path) -> None:
        self.experiment = experiment
        self.corpus = corpus
        self.client = client
        self.folder = folder / experiment.digest[:12] / f"client-{client:03d}"
        self.device = pick_device()

    @cached_property
    def like(self) -> dict[str, Tensor]:
        """Names, shapes and dtypes of what travels."""
        return self.experiment.shared(self.experiment.model())

    def train(
        self, shared: State, now: int, *, has_joined: bool, best: int = 0
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Local epochs of round `now` from the shared experts and the own attention (Eq. 9).

        A client that has not joined yet has no attention of its own: past the first round it
        adapts one to the experts before it trains. The attention of round `best` is kept as well.

        Returns:
            What is shared, and figures: 'loss' and the number of training scans.

        Raises:
            StateError: the attention of an earlier round is lost.
            FloatingPointError: the loss is not a number.
        """
        config, model = self.experiment.config, self._model(shared)
        before = self._latest(now - 1) if has_joined else 0
        if has_joined:
            self._restore(model, before)
        else:
            for path in self._files().values():  # of a run that the server knows nothing of
                path.unlink()
            if now > 1:
                self._adapt(model, shared, now)
        loss = self._fit(model, shared, config.fit, now)
        own = {"digest": self.experiment.digest, "client": self.client, "round": now}
        state.write(self._file(now), self.experiment.personal(model), own)
        self._prune({now, before, self._latest(best)})
        return self._on_cpu(self.experiment.shared(model)), {
            "loss": loss,
            "num-examples": len(self.corpus.train),
        }

    def evaluate(self, shared: State, now: int) -> dict[str, float]:
        """Figures of the shared experts with the own attention of round `now`, on validation scans.

        Raises:
            StateError: the own attention is lost.
        """
        model = self._model(shared)
        self._restore(model, self._latest(now))
        model = model.to(self.device).eval()
        figures = classifier.validation(
            self.corpus.val, self.device, self.experiment.config.eval_eps
        )(model)
        return {**figures, "num-examples": len(self.corpus.val)}

    def _model(self, shared: State) -> MixtureOfExperts:
        model = self.experiment.model()
        model.load_state_dict({**self.experiment.personal(model), **shared})
        return model

    def _adapt(self, model: MixtureOfExperts, shared: State, now: int) -> None:
        """Teaches a newcomer's attention the experts as they are; those do not move."""
        parameters = dict(model.named_parameters())
        for name in parameters.keys() & shared.keys():
            parameters[name].requires_grad_(False)
        self._fit(model, {}, self.experiment.config.adapt, now)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        model.load_state_dict(dict(shared), strict=False)  # running statistics have moved

    def _fit(self, model: MixtureOfExperts, anchor: State, config: FitConfig, now: int) -> float:
        """Trains in place; returns the last epoch's mean loss."""
        federated = self.experiment.config
        loss = federated.loss
        if now <= federated.calm_rounds:
            loss = replace(loss, adv_eps=0.0)
        function = classifier.loss_function(loss, federated.augment)
        if federated.strategy.proximal_mu and anchor:
            function = _proximal(function, anchor, federated.strategy.proximal_mu)
        seed = (self.experiment.seed * 10_000 + now) * 10_000 + self.client
        history = fit(
            model,
            self.corpus.train,
            function,
            replace(config, seed=seed),
            validate=lambda _: {"score": 0.0},  # the last epoch is what the server averages
            report=lambda _: None,
            device=self.device,
        )
        return history[-1]["loss"] if history else 0.0

    def _restore(self, model: MixtureOfExperts, number: int) -> None:
        if not number:
            raise StateError(
                f"client {self.client} trained before, but its attention is not on its disk: give "
                "it back its state folder, or let it join anew under another client number"
            )
        tensors, facts = state.read(self._file(number), self.experiment.digest)
        if facts.get("client") != self.client or tensors.keys() != set(
            self.experiment.personal(model)
        ):
            raise StateError(f"client {self.client}: its own attention is another client's")
        model.load_state_dict(tensors, strict=False)

    def _latest(self, number: int) -> int:
        """The last round up to `number` whose attention is on the disk; 0 if there is none."""
        return max((n for n in self._files() if n <= number), default=0)

    def _files(self) -> dict[int, Path]:
        return {int(p.stem.split("-")[1]): p for p in self.folder.glob("round-*.safetensors")}

    def _file(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.safetensors"

    def _prune(self, keep: set[int]) -> None:
        for number, path in self._files().items():
            if number not in keep:
                path.unlink()

    @staticmethod
    def _on_cpu(tensors: State) -> dict[str, Tensor]:
        return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _proximal(function: LossFn, anchor: State, mu: float) -> LossFn:
    """The loss plus mu / 2 * |theta - theta_round|^2 over what is shared (FedProx)."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        pulls = [
            (parameter - anchor[name].to(parameter)).square().sum()
            for name, parameter in model.named_parameters()
            if name in anchor
        ]
        return function(model, x, y, generator) + mu / 2 * torch.stack(pulls).sum()

    return loss
