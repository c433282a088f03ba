"""Federated methods on the same clients, ablations and costs, each with its table."""
