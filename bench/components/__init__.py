"""Measurements of single components, each with its table: detector, purifier, certificates."""
