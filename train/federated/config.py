"""What a federated training is: clients, rounds, local learning, aggregation. No Flower in here.

Combinations that cannot work are refused where they are read, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from train.augment import AugmentConfig
from train.classifier import ClassifierConfig
from train.partition import PartitionConfig
from train.task import FitConfig

STRATEGIES = ("fedavg", "fedprox", "fedmedian", "trimmed", "krum")
AVERAGING = ("fedavg", "fedprox")  # the others pick or cut: no sum, no noise calibrated to one
BATCH_NORM = ("shared", "local")


@dataclass(frozen=True)
class StrategyConfig:
    """How the server makes one set of experts out of the clients'.

    `proximal_mu` is FedProx' pull towards the round's experts, `trim` the share that the trimmed
    mean cuts off each end, `malicious` the number of clients that Krum withstands. `dp_clip` above
    0 clips each client's update to that L2 norm and adds Gaussian noise of standard deviation
    dp_noise * dp_clip / clients. With `secagg` the server sees sums of updates alone; each number
    of an update must lie within `secagg_range`.
    """

    name: str = "fedavg"
    proximal_mu: float = 0.0
    trim: float = 0.2
    malicious: int = 0
    dp_clip: float = 0.0
    dp_noise: float = 0.0
    secagg: bool = False
    secagg_range: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise ValueError(f"name must be one of {', '.join(STRATEGIES)}, got {self.name!r}")
        if min(self.proximal_mu, self.dp_clip, self.dp_noise, self.malicious) < 0:
            raise ValueError(f"proximal_mu, malicious, dp_clip, dp_noise must be 0 or more: {self}")
        if not 0 < self.trim < 0.5 or not self.secagg_range > 0:
            raise ValueError(f"trim must be in (0, 0.5) and secagg_range positive, got {self}")
        if (self.name == "fedprox") != (self.proximal_mu > 0):
            raise ValueError("fedprox and a proximal_mu above 0 go together: one is the other")
        if self.malicious and self.name != "krum":
            raise ValueError(f"malicious is for krum, {self.name} does not use it")
        if self.dp_noise and not self.dp_clip:
            raise ValueError("dp_noise without dp_clip bounds nothing: set dp_clip too")
        if self.dp_clip and self.name not in AVERAGING:
            raise ValueError(f"dp_noise is calibrated to a mean, {self.name} takes none")
        if self.secagg and self.name not in AVERAGING:
            raise ValueError(
                f"secagg shows the server a sum alone, {self.name} compares the clients"
            )
        if self.secagg and self.dp_clip:
            raise ValueError("dp_clip clips on the server what secagg keeps from it")


@dataclass(frozen=True)
class FederatedConfig:
    """T rounds among N clients (section III-D), each of `fit.epochs` local epochs.

    A share `fraction` of the clients is asked in each round. `late_clients` join in `join_round`:
    they start from the shared experts and adapt their attention alone by `adapt` first. The first
    `calm_rounds` train without attacks. With `batch_norm` local, normalisation is as personal as
    the attention (FedBN, Li et al. 2021). A round ends when all have answered or after `timeout`
    seconds, and counts if `min_clients` have answered.
    """

    num_rounds: int = 20
    fraction: float = 1.0
    min_clients: int = 2
    timeout: float = 3600.0
    late_clients: tuple[int, ...] = ()
    join_round: int = 1
    calm_rounds: int = 0
    batch_norm: str = "shared"
    eval_eps: float = 0.015
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=15, ema=0.0))
    adapt: FitConfig = field(default_factory=lambda: FitConfig(epochs=1, ema=0.0))
    loss: ClassifierConfig = field(default_factory=ClassifierConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        n = self.partition.num_clients
        if self.num_rounds < 1 or self.join_round < 1 or self.calm_rounds < 0:
            raise ValueError(
                "num_rounds and join_round must be 1 or more, calm_rounds 0 or more, "
                f"got {self.num_rounds}, {self.join_round}, {self.calm_rounds}"
            )
        if not 0 < self.fraction <= 1 or not self.timeout > 0 or self.eval_eps < 0:
            raise ValueError(
                "fraction must be in (0, 1], timeout positive, eval_eps 0 or more, "
                f"got {self.fraction}, {self.timeout}, {self.eval_eps}"
            )
        if self.batch_norm not in BATCH_NORM:
            raise ValueError(
                f"batch_norm must be one of {', '.join(BATCH_NORM)}, got {self.batch_norm!r}"
            )
        if not 1 <= self.min_clients <= self.asked:
            raise ValueError(
                f"min_clients must be in [1, {self.asked}], the clients asked in a round, "
                f"got {self.min_clients}"
            )
        if any(not 0 <= c < n for c in self.late_clients):
            raise ValueError(f"late_clients must be in [0, {n - 1}], got {self.late_clients}")
        if self.fit.epochs < 1 or self.fit.patience:
            raise ValueError("fit needs 1 epoch or more, and no patience: rounds are of one length")
        self._check_strategy()

    @property
    def asked(self) -> int:
        """How many of all clients are asked in a round."""
        return max(1, round(self.fraction * self.partition.num_clients))

    def _check_strategy(self) -> None:
        s, fewest = self.strategy, self.min_clients
        if s.name == "fedmedian" and fewest < 3:
            raise ValueError(f"fedmedian of two is their mean: min_clients {fewest} is below 3")
        if s.name == "trimmed" and int(s.trim * fewest) < 1:
            raise ValueError(f"trim {s.trim} of min_clients {fewest} cuts nobody off")
        if s.name == "krum" and fewest < 2 * s.malicious + 3:
            raise ValueError(
                f"krum withstands {s.malicious} malicious clients among {2 * s.malicious + 3} "
                f"or more, min_clients is {fewest}"
            )
        if s.dp_clip and self.batch_norm == "shared":
            raise ValueError(
                "dp_noise on shared batch-norm statistics makes variances negative: "
                "set batch_norm to local"
            )
        if s.secagg and fewest < 3:
            raise ValueError(f"secagg of two tells each the other's: min_clients {fewest} < 3")
