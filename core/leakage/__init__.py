"""Gradient leakage: scans rebuilt from what a hospital sends. No federation and no data in here."""

from core.leakage.closed_form import infer_label, recover_input, recover_patches
from core.leakage.matching import GradientMatching, Rebuilt

__all__ = ["GradientMatching", "Rebuilt", "infer_label", "recover_input", "recover_patches"]
