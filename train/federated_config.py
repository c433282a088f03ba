"""Settings of a federated training: clients, rounds, local learning, aggregation. No Flower here.

Combinations that cannot work raise an error with the reason.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from train.data.partition import PartitionConfig
from train.phases import PHASES

STRATEGIES = ("fedavg", "fedprox", "fedmedian", "trimmed", "krum")
MEAN_STRATEGIES = ("fedavg", "fedprox")  # plain weighted means: fit for secagg and DP noise
BATCH_NORM_MODES = ("shared", "silo", "local")
SHARE_MODES = ("experts", "all", "none")


@dataclass(frozen=True)
class StrategyConfig:
    """Settings of the aggregation of the clients' tensors.

    `proximal_mu` is the weight of FedProx' proximal term, `trim` the share that the trimmed mean
    cuts at each end, `malicious` the number of malicious clients that Krum tolerates. `dp_clip`
    above 0 clips each client's update to that L2 norm and adds Gaussian noise of standard deviation
    dp_noise * dp_clip / clients. With `secagg` the server sees only sums of updates; each value of
    an update must lie within `secagg_range`. `momentum` is the server's (FedAvgM, Hsu et al. 2019).
    With `average` above 0 the exponential mean over rounds is validated and stored, a new round's
    share being 1 - average (as SWA, Izmailov et al. 2018). With `equal` each client counts alike in
    the mean, not by its number of scans.
    """

    name: str = "fedavg"
    proximal_mu: float = 0.0
    trim: float = 0.2
    malicious: int = 0
    dp_clip: float = 0.0
    dp_noise: float = 0.0
    momentum: float = 0.0
    average: float = 0.0
    equal: bool = False
    secagg: bool = False
    secagg_range: float = 1.0

    @property
    def is_mean(self) -> bool:
        """True if the result is the clients' plain mean, without clipping."""
        return self.name in MEAN_STRATEGIES and not self.dp_clip

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
            raise ValueError("fedprox needs a proximal_mu above 0, and only fedprox takes one")
        if self.malicious and self.name != "krum":
            raise ValueError(f"malicious is for krum, {self.name} does not use it")
        if self.dp_noise and not self.dp_clip:
            raise ValueError("dp_noise without dp_clip bounds nothing: set dp_clip too")
        if self.dp_clip and self.name not in MEAN_STRATEGIES:
            raise ValueError(f"dp_noise is calibrated to a mean, {self.name} takes none")
        if self.secagg and self.name not in MEAN_STRATEGIES:
            raise ValueError(
                f"secagg shows the server a sum alone, {self.name} compares the clients"
            )
        if self.equal and (self.secagg or not self.is_mean):
            raise ValueError(
                "equal is for a mean that the server computes: fedavg or fedprox, without dp_clip "
                "(whose clients count alike already) and secagg"
            )
        if self.secagg and self.dp_clip:
            raise ValueError("dp_clip needs single updates, which secagg conceals")


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
    """Federated training: T = `num_rounds` rounds of E = `local_epochs` among N clients (III-D).

    The learning rate follows the phase's schedule over all rounds; every `eval_every`-th round and
    the last are validated. Each round trains a share `fraction` of the clients. `late_clients` join
    in `join_round`: they start from the shared experts and first train only their attention for an
    epoch. The first `calm_rounds` train without attacks. A round ends when all clients have
    answered or after `timeout` seconds, and counts if `min_clients` have answered.

    Sent to the server: with `share` 'experts' all but the attention (the paper), with 'all' the
    attention too (FedAvg), with 'none' nothing (local training). With `batch_norm` 'silo' a client
    keeps its normalisation statistics, measured anew for the weights that it receives (SiloBN,
    Andreux et al. 2020); with 'local' also the normalisation weights (FedBN, Li et al. 2021).

    Attacks in training: each batch is attacked anew, or with `refresh_every` above 0 a client's
    share of scans once in that many rounds (pFedDef's Q). `resources` are the largest shares that
    the clients can attack; clients with more resources make up for the others (pFedDef's
    propagation). With `purify`, training scans that the detector flags are purified (Algorithm 3).
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
        for name, known in (("batch_norm", BATCH_NORM_MODES), ("share", SHARE_MODES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        if not 1 <= self.min_clients <= self.clients_per_round:
            raise ValueError(
                f"min_clients must be in [1, {self.clients_per_round}], the clients of a round, "
                f"got {self.min_clients}"
            )
        if any(not 0 <= c < n for c in self.late_clients):
            raise ValueError(f"late_clients must be in [0, {n - 1}], got {self.late_clients}")
        if self.resources and len(self.resources) != n:
            raise ValueError(f"resources must name a share for each of {n} clients, or be left out")
        if any(not 0 <= share <= 1 for share in self.resources):
            raise ValueError(f"resources must be shares in [0, 1], got {self.resources}")
        self._check_strategy()

    def count_rounds(self, phase: str) -> int:
        """Return the number of rounds T of a phase."""
        return getattr(self.rounds, phase, 0) or self.num_rounds

    @property
    def clients_per_round(self) -> int:
        """Number of clients that train in a round."""
        return max(1, round(self.fraction * self.partition.num_clients))

    def _check_strategy(self) -> None:
        s, fewest = self.strategy, self.min_clients
        if self.share == "none" and (s.name != "fedavg" or s.dp_clip or s.secagg or s.equal):
            raise ValueError(
                "share none sends nothing: set strategy fedavg, without dp_clip, secagg and equal"
            )
        if s.name == "fedmedian" and fewest < 3:
            raise ValueError(f"fedmedian of two is their mean: min_clients {fewest} is below 3")
        if s.name == "trimmed" and int(s.trim * fewest) < 1:
            raise ValueError(f"trim {s.trim} of min_clients {fewest} removes no client")
        if s.name == "krum" and fewest < 2 * s.malicious + 3:
            raise ValueError(
                f"krum with {s.malicious} malicious clients needs {2 * s.malicious + 3} or more "
                f"clients, min_clients is {fewest}"
            )
        if s.dp_clip and self.batch_norm == "shared":
            raise ValueError(
                "dp_noise on shared batch-norm statistics makes variances negative: "
                "set batch_norm to silo or local"
            )
        if s.momentum and self.batch_norm == "shared":
            raise ValueError(
                "momentum on shared batch-norm variances can make them negative: "
                "set batch_norm to silo or local"
            )
        if s.secagg and fewest < 3:
            raise ValueError(
                f"secagg of two clients reveals each update to the other: min_clients {fewest} < 3"
            )
