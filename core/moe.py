"""Personalised mixture of K experts; attention depends on the input (Eq. 4-10) or on the client.

Experts are shared through FedAvg; the attention is personal. `is_personal` is the one definition of
what never leaves a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.backbone import check_backbone, list_stage_sides, mobilenetv2, resnet18
from core.memoize import once
from core.tumour_map import CELL, FINER, TumourMap, TumourMapHead

GATES = ("input", "client")
MIN_WEIGHT = 1e-12  # averaging turns log 0 into NaN, and EM cannot leave weight 0


@dataclass(frozen=True)
class MoEConfig:
    """Shape of the mixture.

    `sides` gives the input resolution of each of the K experts: 56 means the 224 x 224 scan
    averaged to 56 x 56. `channels` are those of the four stages of a
    ResNet-18, and (1280,) for a MobileNetV2. The experts' weights depend
    on `gate`: the `input` (Eq. 8), or the `client` alone (FedEM, Marfoq et al. 2021). With
    `map_width` channels each expert of two classes makes a tumour map, which its answer is pooled
    from (0: none).
    """

    img_size: int = 224
    in_chans: int = 1
    num_classes: int = 2
    sides: tuple[int, ...] = (112, 56, 28)
    channels: tuple[int, ...] = (32, 64, 128, 256)
    hidden: int = 256
    attention_hidden: int = 64
    dropout: float = 0.0
    pretrained: bool = False
    gate: str = "input"
    backbone: str = "resnet18"
    map_width: int = 0

    def __post_init__(self) -> None:
        if not self.sides or any(s < 1 or self.img_size % s for s in self.sides):
            raise ValueError(
                f"each of sides must divide img_size {self.img_size}, got {self.sides}"
            )
        if self.gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {self.gate!r}")
        check_backbone(self.backbone, self.channels, min(self.sides), self.pretrained)
        if self.map_width and (self.backbone != "resnet18" or self.num_classes != 2):
            raise ValueError("a tumour map needs a resnet18 and two classes")


class MixtureOutput(NamedTuple):
    """Output of the mixture for B scans, K experts, C classes."""

    logits: Tensor  # (B, C) log of the mixture's probabilities
    expert_logits: Tensor  # (B, K, C)
    attention: Tensor  # (B, K) non-negative, sums to 1
    maps: tuple[TumourMap, ...] = ()  # of each expert, where they make one


class Answer(NamedTuple):
    """Output of one expert for B scans."""

    logits: Tensor  # (B, C)
    features: Tensor  # (B, D)
    map: TumourMap | None


class Expert(nn.Module):
    """One expert: backbone and a two-layer head with ReLU (section III-B1)."""

    def __init__(self, config: MoEConfig, side: int) -> None:
        super().__init__()
        self.side = side
        c = config
        if c.backbone == "resnet18":
            self.backbone = resnet18(side, c.in_chans, c.channels, c.pretrained)
        else:
            self.backbone = mobilenetv2(side, c.in_chans, c.pretrained)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.channels[-1], config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.num_classes),
        )
        self.tumour_map: TumourMapHead | None = None
        if c.map_width:
            cells = c.img_size // CELL
            sides = list_stage_sides(side, c.channels)
            self.levels = [i for i, n in enumerate(sides) if n <= cells // FINER]
            channels = [c.channels[i] for i in self.levels]
            self.tumour_map = TumourMapHead(channels, c.map_width, cells)

    @once
    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps that the tumour map needs, or only the last ones (B, D, h, w).

        The scans (B, C, H, W) are in [0, 1], and `side` divides H and W. The centre of map cell i
        lies on pixel i * stride at `side`.
        """
        x = F.avg_pool2d(x, x.shape[-1] // self.side)
        x = (x - 0.2) / 0.2  # normalised only here: pixels are in [0, 1] everywhere else
        net: Any = self.backbone
        if self.tumour_map is None:
            return [net.forward_features(x)]
        levels = [i + 1 for i in self.levels]  # 0 is the stem
        maps: list[Tensor] = net.forward_intermediates(x, levels, intermediates_only=True)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.answer(x).logits

    def answer(self, x: Tensor) -> Answer:
        """Return logits, features and tumour map of scans (B, C, H, W) in [0, 1]."""
        return self.judge(self.stages(x))

    def judge(self, stages: list[Tensor]) -> Answer:
        """Return logits, features and tumour map from the result of `stages`."""
        features = stages[-1].mean((2, 3))
        logits: Tensor = self.head(features)
        if self.tumour_map is None:
            return Answer(logits, features, None)
        found = self.tumour_map(stages, logits[:, 1] - logits[:, 0])
        log_odds = found.local + found.overall
        return Answer(torch.stack([-log_odds / 2, log_odds / 2], 1), features, found)


class InputGate(nn.ModuleList):
    """Gate alpha(x) = softmax_k g_k(psi(x)) (Eq. 8), psi the concatenated pooled features."""

    def __init__(self, config: MoEConfig) -> None:
        dim = config.channels[-1] * len(config.sides)
        super().__init__(_build_attention(dim, config.attention_hidden) for _ in config.sides)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of the weights from the experts' pooled features (B, K * D)."""
        # Differs from Eq. 8: psi is normalised, else large features dominate the softmax
        psi = F.layer_norm(features, features.shape[1:])
        return torch.cat([network(psi) for network in self], dim=1).float()


class ClientGate(nn.Module):
    """One weight per expert for all scans: pi of FedEM (Marfoq et al. 2021) and pFedDef."""

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(len(config.sides)))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of the weights; of the features (B, K * D) only B is used."""
        # a bare view of a parameter requires gradients even under no_grad
        return self.log_weights.log_softmax(0).expand(len(features), -1)

    @torch.no_grad()
    def set_weights(self, weights: Tensor) -> None:
        """Set the weights (K,), which sum to 1.

        Raises:
            ValueError: not K non-negative weights that sum to 1.
        """
        k = len(self.log_weights)
        if weights.shape != (k,) or not weights.min() >= 0 or abs(weights.sum() - 1) > 1e-3:
            raise ValueError(f"need {k} weights of at least 0 and of sum 1, got {weights.tolist()}")
        self.log_weights.copy_(weights.clamp_min(MIN_WEIGHT).log())


def _build_attention(dim: int, hidden: int) -> nn.Sequential:
    """Build the MLP of one expert in Eq. 8; a zero last layer makes the first weights equal."""
    first, last = nn.Linear(dim, hidden), nn.Linear(hidden, 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(first, nn.ReLU(), last)


class MixtureOfExperts(nn.Module):
    """Mixture y(x) = sum_k alpha_k(x) f_k(x) (Eq. 5, 6), alpha from the configured gate.

    Probabilities are averaged; `forward` returns their logarithm, which serves as logits.
    """

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.experts = nn.ModuleList(Expert(config, side) for side in config.sides)
        # `is_personal` goes by this name
        self.attention = InputGate(config) if config.gate == "input" else ClientGate(config)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (B, num_classes) of scans (B, C, H, W) in [0, 1]."""
        return self.outputs(x).logits

    def outputs(self, x: Tensor) -> MixtureOutput:
        """Return output, expert logits and attention for scans (B, C, H, W) in [0, 1]."""
        answers = [expert.answer(x) for expert in cast(Sequence[Expert], self.experts)]
        expert_logits = torch.stack([answer.logits.float() for answer in answers], dim=1)
        features = torch.cat([answer.features for answer in answers], dim=1)
        log_attention = F.log_softmax(self.attention(features.float()), dim=1)
        log_probs = F.log_softmax(expert_logits, dim=2)
        logits = torch.logsumexp(log_attention[:, :, None] + log_probs, dim=1)
        maps = tuple(answer.map for answer in answers if answer.map is not None)
        return MixtureOutput(logits, expert_logits, log_attention.exp(), maps)


def mixture_loss(
    output: MixtureOutput,
    y: Tensor,
    model: MixtureOfExperts,
    *,
    beta: float,
    gamma: float,
    expert: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Return cross-entropy + beta * squared L2 of the attention + gamma * entropy (Eq. 9-10).

    Mean over B. Differs from the paper: `expert` adds that multiple of the experts' mean
    cross-entropy, so that an expert with little attention still learns, and `smoothing` smooths
    the labels (both 0: the paper's loss).
    """
    loss: Tensor = F.nll_loss(output.logits, y)
    if smoothing:  # the logits are log-probabilities
        loss = (1 - smoothing) * loss - smoothing * output.logits.mean()
    if expert:
        k = output.expert_logits.shape[1]
        own = F.cross_entropy(
            output.expert_logits.flatten(0, 1), y.repeat_interleave(k), label_smoothing=smoothing
        )
        loss = loss + expert * own
    if beta:
        squares = [p.square().sum() for p in model.attention.parameters()]
        loss = loss + beta * torch.stack(squares).sum()
    if gamma:
        loss = loss + gamma * attention_entropy(output.attention).mean()
    return loss


def attention_entropy(attention: Tensor) -> Tensor:
    """Return H(alpha) = -sum_k alpha_k log alpha_k (Eq. 10) in nats, (B,) from (B, K)."""
    # clamped: the derivative of -a log a is unbounded at 0, where a softmax may underflow
    return -(attention * attention.clamp_min(1e-12).log()).sum(dim=1)


def is_personal(name: str) -> bool:
    """Return True for a name of the attention: personal, never sent to the server."""
    return "attention" in name.split(".")
