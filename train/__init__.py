"""Training: data, near-duplicate-free splits, phases, calibration, federation."""

import core  # noqa: F401 - sets OpenMP's environment before PyTorch is imported
