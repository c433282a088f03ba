"""Propagation of adversarial training (pFedDef): clients with resources attack more scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.federated.experiment import Experiment


def propagate_shares(
    share: float, resources: Sequence[float], counts: Mapping[int, int]
) -> dict[int, float]:
    """Return each client's share of adversarial examples, `share` over all (Kim et al. 2023).

    No client attacks more than its `resources` allow; the remainder is spread evenly over the
    other clients' scans, as far as they can. `counts` are the training scans by client.
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


def adv_shares_message(
    experiment: Experiment, counts: Mapping[int, int]
) -> dict[int, dict[str, float]]:
    """Return config entries with each client's share of adversarial examples, by client.

    Empty where the preset names no `resources` or the phase trains without attacks.
    """
    resources, wanted = experiment.config.resources, experiment.adv_share
    if not resources or not wanted:
        return {}
    shares = propagate_shares(wanted, resources, counts)
    return {client: {"adv-share": share} for client, share in shares.items()}
