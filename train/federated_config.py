"""Settings of a federated training: clients, rounds, local learning, aggregation. No Flower here.

Combinations that cannot work are refused where they are read, with the reason.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from train.data.partition import PartitionConfig
from train.phases import PHASES

STRATEGIES = ("fedavg", "fedprox", "fedmedian", "trimmed", "krum")
AVERAGING = ("fedavg", "fedprox")  # the others pick or cut: no sum, no noise calibrated to one
BATCH_NORM = ("shared", "silo", "local")
SHARE = ("experts", "all", "none")


@dataclass(frozen=True)
class StrategyConfig:
    """Settings of the aggregation of the clients' tensors.

    `proximal_mu` is FedProx' pull towards the round's experts, `trim` the share that the trimmed
    mean cuts off each end, `malicious` the number of clients that Krum withstands. `dp_clip` above
    0 clips each client's update to that L2 norm and adds Gaussian noise of standard deviation
    dp_noise * dp_clip / clients. With `secagg` the server sees sums of updates alone; each number
    of an update must lie within `secagg_range`. `momentum` above 0 lets the server go on in the
    direction of earlier rounds (FedAvgM, Hsu et al. 2019). With `average` above 0 what is validated
    and kept is an exponential mean of what the rounds led to, each new one's share 1 - average:
    flatter minima (SWA, Izmailov et al. 2018) without another message.
    """

    name: str = "fedavg"
    proximal_mu: float = 0.0
    trim: float = 0.2
    malicious: int = 0
    dp_clip: float = 0.0
    dp_noise: float = 0.0
    momentum: float = 0.0
    average: float = 0.0
    secagg: bool = False
    secagg_range: float = 1.0

    @property
    def is_mean(self) -> bool:
        """True where the result is the clients' plain mean, without clipping."""
        return self.name in AVERAGING and not self.dp_clip

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise ValueError(f"name must be one of {', '.join(STRATEGIES)}, got {self.name!r}")
        if min(self.proximal_mu, self.dp_clip, self.dp_noise, self.malicious) < 0:
            raise ValueError(f"proximal_mu, malicious, dp_clip, dp_noise must be 0 or more: {self}")
        if not 0 < self.trim < 0.5 or not self.secagg_range > 0:
            raise ValueError(f"trim must be in (0, 0.5) and secagg_range positive, got {self}")
        for name in ("momentum", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
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


def _check_rounds(rounds: Any) -> None:
    if min(vars(rounds).values()) < 0:
        raise ValueError(f"rounds must be 0 or more, got {rounds}")


# T of each phase but the first; 0 means `num_rounds`. A phase solved in closed form needs one round
if TYPE_CHECKING:
    PhaseRounds: TypeAlias = Any
else:
    PhaseRounds = dataclasses.make_dataclass(
        "PhaseRounds",
        [(p.name, int, int(p.is_solved)) for p in PHASES[1:]],
        frozen=True,
        namespace={"__post_init__": _check_rounds, "__doc__": "Rounds of each phase."},
    )


@dataclass(frozen=True)
class FederatedConfig:
    """T = `num_rounds` rounds of E = `local_epochs` among N clients (section III-D).

    The learning rate follows the phase's schedule over all rounds; every `eval_every`-th, and the
    last, is measured on validation scans. A share `fraction` of the
    clients is asked in each round. `late_clients` join in `join_round`: they start from the shared
    experts and adapt their attention alone for an epoch first. The first `calm_rounds` train
    without attacks. A round ends when all have answered or after `timeout` seconds, and counts if
    `min_clients` have answered.

    What travels: with `share` 'experts' all but the attention (the paper), with 'all' the attention
    too (FedAvg), with 'none' nothing (local training). With `batch_norm` 'silo' the statistics of
    normalisation stay at home, measured anew for the weights that arrive (SiloBN, Andreux et al.
    2020); with 'local' its weights do too (FedBN, Li et al. 2021).

    Attacks in training: each batch is attacked anew, or with `refresh_every` above 0 a client's
    share of scans once in so many rounds (pFedDef's Q). `resources` are the largest shares that
    the clients can afford; those who can do more then make up for those who cannot (pFedDef's
    propagation). With `purify`, training scans that the detector flags are purified first
    (Algorithm 3).
    """

    num_rounds: int = 20
    local_epochs: int = 15
    eval_every: int = 1
    fraction: float = 1.0
    min_clients: int = 2
    timeout: float = 3600.0
    late_clients: tuple[int, ...] = ()
    join_round: int = 1
    calm_rounds: int = 0
    share: str = "experts"
    batch_norm: str = "silo"
    refresh_every: int = 0
    resources: tuple[float, ...] = ()
    purify: bool = False
    rounds: PhaseRounds = field(default_factory=PhaseRounds)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)

    def __post_init__(self) -> None:
        n = self.partition.num_clients
        for name in ("num_rounds", "local_epochs", "eval_every", "join_round"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("calm_rounds", "refresh_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.fraction <= 1 or not self.timeout > 0:
            raise ValueError(
                f"fraction must be in (0, 1], timeout positive, got {self.fraction}, {self.timeout}"
            )
        for name, known in (("batch_norm", BATCH_NORM), ("share", SHARE)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        if not 1 <= self.min_clients <= self.asked:
            raise ValueError(
                f"min_clients must be in [1, {self.asked}], the clients asked in a round, "
                f"got {self.min_clients}"
            )
        if any(not 0 <= c < n for c in self.late_clients):
            raise ValueError(f"late_clients must be in [0, {n - 1}], got {self.late_clients}")
        if self.resources and len(self.resources) != n:
            raise ValueError(f"resources must name a share for each of {n} clients, or be left out")
        if any(not 0 <= share <= 1 for share in self.resources):
            raise ValueError(f"resources must be shares in [0, 1], got {self.resources}")
        self._check_strategy()

    def rounds_of(self, phase: str) -> int:
        """T of a phase."""
        return getattr(self.rounds, phase, 0) or self.num_rounds

    @property
    def asked(self) -> int:
        """Number of clients that are asked in a round."""
        return max(1, round(self.fraction * self.partition.num_clients))

    def _check_strategy(self) -> None:
        s, fewest = self.strategy, self.min_clients
        if self.share == "none" and (s.name != "fedavg" or s.dp_clip or s.secagg):
            raise ValueError("share none sends nothing: there is nothing for a strategy to do")
        if s.name == "fedmedian" and fewest < 3:
            raise ValueError(f"fedmedian of two is their mean: min_clients {fewest} is below 3")
        if s.name == "trimmed" and int(s.trim * fewest) < 1:
            raise ValueError(f"trim {s.trim} of min_clients {fewest} removes no client")
        if s.name == "krum" and fewest < 2 * s.malicious + 3:
            raise ValueError(
                f"krum withstands {s.malicious} malicious clients among {2 * s.malicious + 3} "
                f"or more, min_clients is {fewest}"
            )
        if s.dp_clip and self.batch_norm == "shared":
            raise ValueError(
                "dp_noise on shared batch-norm statistics makes variances negative: "
                "set batch_norm to silo or local"
            )
        if s.momentum and self.batch_norm == "shared":
            raise ValueError("momentum on shared batch-norm variances can make them negative: "
                             "set batch_norm to silo or local")  # fmt: skip
        if s.secagg and fewest < 3:
            raise ValueError(f"secagg of two tells each the other's: min_clients {fewest} < 3")
