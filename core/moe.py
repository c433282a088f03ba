"""Personalised mixture of K experts with input-dependent attention (Eq. 4-10).

Experts are shared through FedAvg; the attention is personal: `is_personal` is the one definition of
what never leaves a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.once import once

RESNET18_CHANNELS = (64, 128, 256, 512)
FULL_SIDE = 224  # ResNet-18's own stem was made for this side


@dataclass(frozen=True)
class MoEConfig:
    """Shape of the mixture.

    `sides` gives, for each of the K experts, the side at which it looks at a scan: 56 means that it
    sees the 224 x 224 scan averaged to 56 x 56. An expert at 224 keeps ResNet-18's own stem (7 x 7,
    stride 2, max-pooling); below, the stem is a 3 x 3 convolution without max-pooling, of stride 2
    where the picture is still 112 or wider.
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

    def __post_init__(self) -> None:
        if not self.sides or any(s < 1 or self.img_size % s for s in self.sides):
            raise ValueError(
                f"each of sides must divide img_size {self.img_size}, got {self.sides}"
            )
        if len(self.channels) != 4:
            raise ValueError(f"channels must name four stages, got {self.channels}")
        if self.pretrained and (self.channels != RESNET18_CHANNELS or min(self.sides) < FULL_SIDE):
            raise ValueError("pretrained weights fit full-width experts at full resolution only")


class MixtureOutput(NamedTuple):
    """What the mixture computes, B scans, K experts, C classes."""

    logits: Tensor  # (B, C) log of the mixture's probabilities
    expert_logits: Tensor  # (B, K, C)
    attention: Tensor  # (B, K) non-negative, sums to 1


class Expert(nn.Module):
    """One learner: ResNet-18 backbone and a two-layer head with ReLU (section III-B1)."""

    def __init__(self, config: MoEConfig, side: int) -> None:
        super().__init__()
        self.side = side
        self.backbone = _resnet18(config, side)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.channels[-1], config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.num_classes),
        )

    def maps(self, x: Tensor) -> Tensor:
        """Last feature maps (B, D, h, w) of scans (B, C, H, W) in [0, 1]; `side` divides H and W.

        The centre of map cell i lies on pixel i * stride of the picture of `side` pixels.
        """
        x = F.avg_pool2d(x, x.shape[-1] // self.side)
        # pixels are [0, 1] everywhere outside; zero mean and about unit spread only in here
        maps: Tensor = self.backbone.forward_features((x - 0.2) / 0.2)  # type: ignore[operator]
        return maps

    @once
    def features(self, x: Tensor) -> Tensor:
        """Pooled features (B, D): the means of the maps."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


class MixtureOfExperts(nn.Module):
    """y(x) = sum_k alpha_k(x) f_k(x) with alpha = softmax_k g_k(psi(x)) (Eq. 5, 6, 8).

    psi(x) is the concatenation of the experts' pooled features. The outputs that are averaged are
    probabilities, and `forward` returns their logarithm, which serves as logits.
    """

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.experts = nn.ModuleList(Expert(config, side) for side in config.sides)
        dim = config.channels[-1] * len(config.sides)
        self.attention = nn.ModuleList(
            _attention(dim, config.attention_hidden) for _ in config.sides
        )

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (B, num_classes) of scans (B, C, H, W) in [0, 1]."""
        return self.outputs(x).logits

    def outputs(self, x: Tensor) -> MixtureOutput:
        """The mixture with its parts, for scans (B, C, H, W) in [0, 1]."""
        experts = cast(Sequence[Expert], self.experts)
        features = [expert.features(x) for expert in experts]
        expert_logits = torch.stack(
            [expert.head(f).float() for expert, f in zip(experts, features, strict=True)],
            dim=1,
        )
        # Differs from Eq. 8: psi is normalised, else experts with long features rule the softmax
        psi = F.layer_norm(torch.cat(features, dim=1).float(), (sum(f.shape[1] for f in features),))
        scores = torch.cat([network(psi) for network in self.attention], dim=1).float()
        log_attention = F.log_softmax(scores, dim=1)
        log_probs = F.log_softmax(expert_logits, dim=2)
        logits = torch.logsumexp(log_attention[:, :, None] + log_probs, dim=1)
        return MixtureOutput(logits, expert_logits, log_attention.exp())


def mixture_loss(
    output: MixtureOutput,
    y: Tensor,
    model: MixtureOfExperts,
    *,
    beta: float,
    gamma: float,
    expert: float = 0.0,
) -> Tensor:
    """Cross-entropy of the mixture + beta * L2 of the attention + gamma * entropy (Eq. 9-10).

    The mean over B. Differs from the paper: `expert` adds that share of the experts' own mean
    cross-entropy, so that an expert which the attention neglects early still learns (0 is the
    paper's loss).
    """
    loss: Tensor = F.nll_loss(output.logits, y)
    if expert:
        k = output.expert_logits.shape[1]
        own = F.cross_entropy(output.expert_logits.flatten(0, 1), y.repeat_interleave(k))
        loss = loss + expert * own
    if beta:
        squares = [p.square().sum() for p in model.attention.parameters()]
        loss = loss + beta * torch.stack(squares).sum()
    if gamma:
        loss = loss + gamma * attention_entropy(output.attention).mean()
    return loss


def attention_entropy(attention: Tensor) -> Tensor:
    """H(alpha) = -sum_k alpha_k log alpha_k (Eq. 10), (B,) from (B, K), in nats."""
    # the derivative of -a log a has no bound at 0, where a softmax may underflow
    return -(attention * attention.clamp_min(1e-12).log()).sum(dim=1)


def is_personal(name: str) -> bool:
    """Whether a parameter or buffer of a mixture is a client's own, never sent: the attention."""
    return "attention" in name.split(".")


def _attention(dim: int, hidden: int) -> nn.Sequential:
    """The MLP of one expert in Eq. 8. Weights start equal: experts first, preferences later."""
    first, last = nn.Linear(dim, hidden), nn.Linear(hidden, 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(first, nn.ReLU(), last)


def _resnet18(config: MoEConfig, side: int) -> nn.Module:
    if side >= FULL_SIDE and config.channels == RESNET18_CHANNELS:
        full: nn.Module = timm.create_model(
            "resnet18", pretrained=config.pretrained, in_chans=config.in_chans, num_classes=0
        )
        return full
    width = config.channels[0]
    net: nn.Module = timm.create_model(
        "resnet18",
        in_chans=config.in_chans,
        num_classes=0,
        channels=config.channels,
        stem_type="deep",
        stem_width=width // 2,
    )
    stride = 2 if side >= 112 else 1
    net.conv1 = nn.Conv2d(config.in_chans, width, 3, stride=stride, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def weighted_mean(states: Sequence[dict[str, Tensor]], counts: Sequence[int]) -> dict[str, Tensor]:
    """FedAvg: sum_i n_i / n * theta_i over shared names (Eq. 23); personal names are left out."""
    total = sum(counts)
    if total <= 0 or len(states) != len(counts):
        raise ValueError(
            f"need one positive count per state, got {list(counts)} for {len(states)} states"
        )
    return {
        name: _as(
            torch.stack(
                [s[name].double() * (n / total) for s, n in zip(states, counts, strict=True)]
            ).sum(0),
            value.dtype,
        )
        for name, value in states[0].items()
        if not is_personal(name)
    }


def _as(mean: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean in its tensors' dtype; counters are rounded, as a cast would cut 6.999... to 6."""
    return (mean if dtype.is_floating_point else mean.round()).to(dtype)
