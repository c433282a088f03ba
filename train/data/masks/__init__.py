"""Tumour masks: from outlines and pictures to the scans' grid, and as an array for training."""

from train.data.masks.array import MaskArray, load_mask_array
from train.data.masks.drawing import MIN_PIXELS, Outline, draw_mask, find_outlines, load_masks

__all__ = [
    "MIN_PIXELS",
    "MaskArray",
    "Outline",
    "draw_mask",
    "find_outlines",
    "load_mask_array",
    "load_masks",
]
