"""Propagation of adversarial examples to clients with fewer resources (pFedDef)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.federated.experiment import Experiment


def propagate_shares(
    share: float, resources: Sequence[float], counts: Mapping[int, int]
) -> dict[int, float]:
    """Compute each client's share of attacked scans for a total of `share` (Kim et al. 2023).

    No client attacks more than its `resources` allow; what some cannot do is spread evenly over
    the others' scans, as far as they can. `counts` are the training scans by client.
    """
    left, open_ = share * sum(counts.values()), dict(counts)
    shares: dict[int, float] = {}
    while open_:
        level = left / sum(open_.values())
        short = [client for client in open_ if resources[client] < level]
        if not short:
            return {**shares, **dict.fromkeys(open_, level)}
        for client in short:
            shares[client] = resources[client]
            left -= resources[client] * open_.pop(client)
    return shares


def build_share_entries(
    experiment: Experiment, counts: Mapping[int, int]
) -> dict[int, dict[str, float]]:
    """Build the config entries with each client's share of attacked scans, if the shares differ."""
    resources, wanted = experiment.config.resources, experiment.adv_share
    if not resources or not wanted:
        return {}
    found = propagate_shares(wanted, resources, counts)
    return {client: {"adv-share": share} for client, share in found.items()}
