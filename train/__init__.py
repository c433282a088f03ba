"""Training: data, near-duplicate-free splits, and the three phases of the paper."""
