"""Training: data, near-duplicate-free splits, phases, calibration, federation."""
