"""Scans for training and evaluation: sources, splits, data sets, partition. No networks."""
