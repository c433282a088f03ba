"""From a preset's words to Flower's aggregation, made anew each round: none keeps a state."""

from __future__ import annotations

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    Strategy,
)

from train.federated.config import StrategyConfig

COUNT = "num-examples"  # weighs a client in Eq. 23
EQUAL = "one"  # weighs all the same: a bound on one client's influence needs that
SECONDS = "seconds"  # a client's own time; shown, not kept: it differs between equal runs


def build(config: StrategyConfig, arrays: ArrayRecord, clients: int) -> Strategy:
    """The aggregation of one round that started from `arrays`, with answers of `clients`."""
    if config.name == "fedmedian":
        return FedMedian()
    if config.name == "trimmed":
        return FedTrimmedAvg(beta=config.trim)
    if config.name == "krum":
        return Krum(num_malicious_nodes=config.malicious)
    weight = EQUAL if config.dp_clip else COUNT
    mean: FedAvg = (
        FedProx(proximal_mu=config.proximal_mu, weighted_by_key=weight)
        if config.name == "fedprox"
        else FedAvg(weighted_by_key=weight)
    )
    if not config.dp_clip:
        return mean
    private = DifferentialPrivacyServerSideFixedClipping(
        mean, config.dp_noise, config.dp_clip, clients
    )
    private.current_arrays = arrays  # what updates are measured from
    return private
