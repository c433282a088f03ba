"""Maps that are measured: the mixture's tumour map, and Grad-CAM beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core.classifier import Calibrated
from core.explanation import explain
from core.maps.gradcam import grad_cam

TUMOUR_MAP, GRAD_CAM = "tumour map", "Grad-CAM"


class Maps(NamedTuple):
    """Maps of B scans; a cell is a square of H / h pixels."""

    cells: Tensor  # (B, h, w)
    pixels: Tensor  # (B, H, W) the cells, resized bilinearly between their centres

    def select(self, index: int) -> Maps:
        """Return one scan's map, on the CPU."""
        return Maps(*(values[index : index + 1].cpu() for values in self))


DrawMaps = Callable[[Tensor], Maps]


def find_maps(classifier: Calibrated) -> dict[str, DrawMaps]:
    """Return the maps that a classifier can draw of scans (B, C, H, W), by name."""
    drawn: dict[str, DrawMaps] = {GRAD_CAM: lambda x: draw_grad_cam(classifier, x)}
    if classifier.model.config.map_width:
        drawn = {TUMOUR_MAP: lambda x: draw_tumour_map(classifier, x), **drawn}
    return drawn


@torch.no_grad()
def draw_tumour_map(classifier: Calibrated, x: Tensor) -> Maps:
    """Draw the mixture's tumour maps, probabilities, of scans (B, C, H, W).

    Raises:
        ValueError: the network makes no tumour map.
    """
    cells = explain(classifier, classifier.model.outputs(x)).mixed
    if cells is None:
        raise ValueError("the network makes no tumour map")
    return Maps(cells, resize_cells(cells, x.shape[-1]))


def draw_grad_cam(classifier: Calibrated, x: Tensor) -> Maps:
    """Draw the mixture's Grad-CAM of 'tumour', log-odds, of scans (B, C, H, W); a cell is a pixel.

    The experts' feature maps have cells of different sizes. Of experts with a tumour map it
    explains the global part of the log-odds alone, which `core.maps.gradcam` differentiates.
    """
    pixels = grad_cam(classifier.model, x, torch.ones(len(x), dtype=torch.long).to(x.device))
    return Maps(pixels.mixture, pixels.mixture)


def resize_cells(cells: Tensor, side: int) -> Tensor:
    """Resize maps (B, h, h) bilinearly to (B, side, side); a cell's value stands at its centre."""
    return F.interpolate(cells[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
