"""Closed forms: what the gradient of one scan tells without any search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.mae import PIXEL_MEAN, PIXEL_SD


class Patches(NamedTuple):
    """Visible patches of one scan, as the masked autoencoder read them."""

    places: Tensor  # (V,) int64, in the order of `patchify`
    patches: Tensor  # (V, C * p * p) in [0, 1]


def infer_label(bias: Tensor) -> int:
    """Infer a scan's label from the gradient (C,) of the last layer's bias (iDLG).

    A cross-entropy has the gradient p - onehot(y), which is negative at the label alone (Zhao et
    al. 2020). Of a batch it tells a label that the batch holds.
    """
    return int(bias.argmin())


def recover_input(weight: Tensor, bias: Tensor) -> Tensor:
    """Recover the input (D,) of a linear layer from the gradients of its weight and bias.

    The gradient of row i is g_i * input, that of bias i is g_i (Phong et al. 2018). Of a batch it
    is a weighted sum of inputs.

    Args:
        weight: (O, D).
        bias: (O,).

    Raises:
        ValueError: the gradient of the bias is 0: the layer was not used.
    """
    row = int(bias.abs().argmax())
    if not bias[row]:
        raise ValueError("the gradient of the bias is 0: nothing was learned from this input")
    return weight[row] / bias[row]


def recover_patches(embed: Tensor, position: Tensor) -> Patches:
    """Recover the visible patches of one scan from one gradient of the masked autoencoder.

    The gradient of the position embedding holds each visible token's error, that of the embedding
    their sum over tokens times patches: a linear system (APRIL, Lu et al. 2022).

    Args:
        embed: gradient (D, C * p * p) of the weight of the patch embedding.
        position: gradient (1, L, D) of the position embedding.

    Raises:
        ValueError: more tokens were visible than an error has numbers, or none.
    """
    places = position[0].abs().amax(1).nonzero()[:, 0]
    if not 0 < len(places) <= position.shape[2]:
        raise ValueError(f"{len(places)} visible tokens cannot be told apart")
    errors = position[0, places].double()  # (V, D)
    solved = torch.linalg.lstsq(errors.T, embed.double(), driver="gelsd").solution
    patches = (solved * PIXEL_SD + PIXEL_MEAN).clamp(0, 1).to(embed)
    return Patches(places, patches)
