"""Propagation of attacked scans from clients who can afford them to those who cannot (pFedDef)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.federated.experiment import Experiment


def propagated(
    share: float, resources: Sequence[float], counts: Mapping[int, int]
) -> dict[int, float]:
    """Each client's share of attacked scans, so that of all scans `share` are (Kim et al. 2023).

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


def told(experiment: Experiment, counts: Mapping[int, int]) -> dict[int, dict[str, float]]:
    """What the clients with these numbers of scans are told of their shares, if those differ."""
    resources, wanted = experiment.config.resources, experiment.adv_share
    if not resources or not wanted:
        return {}
    found = propagated(wanted, resources, counts)
    return {client: {"adv-share": share} for client, share in found.items()}
