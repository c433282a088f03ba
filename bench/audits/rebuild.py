"""Attackers that rebuild a scan from what was sent, closed forms first, by phase."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.audits.updates import PhaseUnderAudit
from core.diffusion import Diffusion, to_model
from core.leakage import GradientMatching, infer_label, recover_patches
from core.mae import MaskedAutoencoder
from core.moe import MixtureOfExperts
from core.unet import UNet

Sent = Mapping[str, Tensor]
DEPTH = 50  # step t of the diffusion model's loss, of at most 999
PHASES = ("mixture", "plain", "mae", "diffusion")


def compute_loss(model: nn.Module, x: Tensor, y: Tensor, draw: int) -> Tensor:
    """Return the loss of scans as they are, without augmentation, by kind of network.

    `draw` is the seed of a mask or of noise, which the attacker knows, or guesses.
    """
    if isinstance(model, MixtureOfExperts):
        return F.nll_loss(model(x), y)
    if isinstance(model, MaskedAutoencoder):
        return model.loss(x, torch.Generator().manual_seed(draw))
    if isinstance(model, UNet):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(draw))
        t = torch.full((len(x),), DEPTH)
        x_t = Diffusion().q_sample(to_model(x), t, noise)
        return (model(x_t, t) - noise).square().mean()
    raise TypeError(f"no attack on {type(model).__name__}")


def differentiate(
    phase: PhaseUnderAudit, x: Tensor, y: Tensor, draw: int, create_graph: bool = False
) -> list[Tensor]:
    """Return the gradients of the parameters that are sent, in the order of `phase.names`."""
    parameters = dict(phase.model.named_parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
        loss = compute_loss(phase.model, x, y, draw)
    found = torch.autograd.grad(
        loss, [parameters[name] for name in phase.names],
        create_graph=create_graph, allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return list(found)


def copy_patches(phase: PhaseUnderAudit, sent: Sent) -> Tensor | None:
    """Return the scan (1, 1, H, W) of the visible patches alone; None without a closed form.

    Patches that were hidden are grey.
    """
    model = phase.model
    if not isinstance(model, MaskedAutoencoder) or "position" not in sent:
        return None
    try:
        places, patches = recover_patches(sent["embed.weight"], sent["position"])
    except ValueError:
        return None
    whole = torch.full((1, model.config.num_patches, patches.shape[1]), patches.mean().item())
    whole[0, places] = patches
    return model.unpatchify(whole)


def guess_label(phase: PhaseUnderAudit, sent: Sent) -> int | None:
    """Return the label that the last layers' biases tell; None where the network has no label."""
    if not isinstance(phase.model, MixtureOfExperts):
        return None
    biases = [value for name, value in sent.items() if name.endswith("head.3.bias")]
    return infer_label(torch.stack(biases).sum(0)) if biases else None


def search(
    phase: PhaseUnderAudit,
    sent: Sent,
    label: int,
    draw: int,
    matching: GradientMatching,
) -> Tensor:
    """Return the scan (1, 1, H, W) whose gradient is nearest to what was sent."""
    y = torch.tensor([label])
    side = phase.experiment.preset.system.moe.img_size
    return matching(
        lambda x: differentiate(phase, x, y, draw, create_graph=True),
        [sent[name] for name in phase.names],
        (1, 1, side, side),
        draw,
    ).scans
