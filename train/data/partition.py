"""Partition of scans among hospitals (clients); near-duplicates stay together.

A group of near-duplicates goes to one client as a whole. It is dealt with the scans of its first
fold (train, then validation, then test), so that test scans do not affect the training scans of
any client.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from train.data.corpus import Corpus
from train.data.dataset import ScanDataset
from train.data.errors import DataError
from train.data.scanner_shift import ScannerConfig, shift
from train.data.source_tables import COLLECTION, IXI, TCGA
from train.data.sources import BR35H
from train.data.split import ASIDE, FOLDS, Manifest
from train.data.split_patients import find_site

KINDS = ("iid", "dirichlet", "site")
# hospitals of a partition by site -> the site whose scans they hold
HOSPITALS = {
    "TCGA-DU": f"{TCGA}/DU",
    "TCGA-HT": f"{TCGA}/HT",
    "TCGA-CS": f"{TCGA}/CS",
    "TCGA-FG+EZ": f"{TCGA}/FG",
    "IXI": IXI,
    **{f"{COLLECTION} {i}": COLLECTION for i in (1, 2, 3)},
    **{f"{BR35H} {i}": BR35H for i in (1, 2)},
}
# IXI is healthy people alone: their hospital holds this share of a hospital's scans of these too
GUESTS = {COLLECTION: 0.25, BR35H: 0.25}
MAX_DRAWS = 200  # from the Dirichlet, until every client can train


@dataclass(frozen=True)
class PartitionConfig:
    """Settings of the partition of scans among `num_clients` hospitals.

    `iid`: the same mix everywhere. `dirichlet`: each class in shares drawn from a symmetric
    Dirichlet(`concentration`), drawn again until each client has `min_scans` training scans of at
    least two classes. `site`: the ten HOSPITALS, patients where their scans were made as far as
    that is known. With `max_scans` above 0 a client learns from that many of its training scans,
    evenly spaced, and validates on a tenth as many.
    """

    kind: str = "iid"
    num_clients: int = 10
    concentration: float = 0.5
    min_scans: int = 20
    max_scans: int = 0
    seed: int = 0
    scanner: ScannerConfig = field(default_factory=ScannerConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "site" and self.num_clients != len(HOSPITALS):
            raise ValueError(
                f"a partition by site has {len(HOSPITALS)} hospitals: num_clients must be "
                f"{len(HOSPITALS)}, got {self.num_clients}"
            )
        if self.num_clients < 1 or self.min_scans < 1 or not self.concentration > 0:
            raise ValueError(
                f"num_clients and min_scans must be 1 or more, concentration positive, got {self}"
            )
        if self.max_scans and self.max_scans < max(self.min_scans, 10):
            raise ValueError(f"max_scans must be 0, or 10 and min_scans or more, got {self}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PartitionConfig:
        """Return the settings that `dataclasses.asdict` made `values` of."""
        return cls(**{**values, "scanner": ScannerConfig(**values["scanner"])})

    def name_client(self, client: int) -> str:
        """Name a client by its number, and by its hospital where that is a site."""
        return list(HOSPITALS)[client] if self.kind == "site" else f"client {client}"


class Row(NamedTuple):
    """The facts of one scan that a partition uses."""

    fold: str
    source: str
    label: int
    group: int
    site: str = ""  # see `find_site`; empty without a manifest


def list_rows(data: Manifest | Corpus) -> list[Row]:
    """List one row a scan: a manifest in its order, a corpus training scans first."""
    if isinstance(data, Manifest):
        return [Row(e.fold, e.source, e.record.label, e.group, find_site(e)) for e in data.entries]
    return [*list_fold_rows(data.train, "train"), *list_fold_rows(data.val, "val")]


def list_fold_rows(data: ScanDataset, fold: str) -> list[Row]:
    """List one row a scan of a fold, in its order."""
    sites = [find_site(e) for e in data.entries] or [""] * len(data)
    facts = zip(data.sources, data.labels.tolist(), data.groups, sites, strict=True)
    return [Row(fold, *fact) for fact in facts]


def assign(rows: Sequence[Row], config: PartitionConfig) -> list[int]:
    """Return the client, 0 to num_clients - 1, of each row; equal seeds give equal clients.

    Raises:
        DataError: a client would have too few scans or classes to train, or none to validate, or
            the scans are not those of the hospitals of a partition by site.
    """
    if config.kind == "site":
        rows = _place_at_sites(rows)
    homes = _place_groups(rows)
    problem = ""
    for draw in range(MAX_DRAWS if config.kind == "dirichlet" else 1):
        shares = _compute_shares(homes, config, draw)
        owner: dict[int, int] = {}
        for home, groups in homes.items():
            owner |= _deal(groups, shares[home[1:]], _make_generator(config.seed, draw, *home))
        clients = [owner[row.group] for row in rows]
        problem = _find_problem(rows, clients, config)
        if not problem:
            return clients
    raise DataError(f"{problem}: fewer clients, more scans or a higher concentration are needed")


def select_client_corpus(corpus: Corpus, config: PartitionConfig, client: int) -> Corpus:
    """Return one client's part of a corpus, with its scanner shift.

    In a partition by site the sites are its sources: a few near-duplicates that another source
    holds too weigh no more in training than their group does.

    Raises:
        ValueError: there is no such client.
        DataError: a client would have too few scans.
    """
    if not 0 <= client < config.num_clients:
        raise ValueError(f"client must be in [0, {config.num_clients - 1}], got {client}")
    rows = list_rows(corpus)
    mine = [i for i, c in enumerate(assign(rows, config)) if c == client]
    placed = _place_at_sites(rows) if config.kind == "site" else rows
    cut = len(corpus.train)
    inside = [i for i in mine if i < cut], [i - cut for i in mine if i >= cut]

    def select(data: ScanDataset, keep: list[int], offset: int) -> ScanDataset:
        names = [i + offset for i in keep]
        part = data.pick(keep)
        cells = [f"{placed[i].source}/{placed[i].label}" for i in names]
        scans = shift(part.scans, config.scanner, config.seed, client, names)
        return replace(part, scans=scans, cells=cells)

    train, val = select(corpus.train, inside[0], 0), select(corpus.val, inside[1], cut)
    if config.max_scans:
        train, val = (
            train.thin(config.max_scans, truncate=True),
            val.thin(config.max_scans // 10, truncate=True),
        )
    return replace(corpus, train=train, val=val)


def _place_at_sites(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the site of their group in their fold as source.

    A group is where its patient was scanned, or else where most of its scans are from.
    """
    sites = list(dict.fromkeys(HOSPITALS.values()))
    if (found := {row.site for row in rows}) != set(sites):
        raise DataError(
            f"a partition by site needs scans of {', '.join(sites)}, as protocol 'patients' has "
            f"them, found {', '.join(sorted(found - {''})) or 'none'}: add "
            "them, or take a preset of another partition, such as sites+iid"
        )
    votes: dict[tuple[int, str], Counter[str]] = {}
    for row in rows:
        votes.setdefault((row.group, row.fold), Counter())[row.site] += 1
    homes = {}
    for group, counts in votes.items():
        known = [site for site in counts if site not in GUESTS]
        homes[group] = known[0] if known else min(counts, key=lambda site: (-counts[site], site))
    return [row._replace(source=homes[row.group, row.fold]) for row in rows]


def _place_groups(rows: Sequence[Row]) -> dict[tuple[str, str, int], dict[int, int]]:
    """Return (fold, source, label) -> {group dealt there: its scans in that fold}."""
    homes: dict[tuple[str, str, int], dict[int, int]] = {}
    placed: set[int] = set()
    for fold in (*FOLDS, ASIDE):
        members: dict[int, list[Row]] = {}
        for row in rows:
            if row.fold == fold and row.group not in placed:
                members.setdefault(row.group, []).append(row)
        for group, inside in members.items():
            (source, label), _ = Counter((r.source, r.label) for r in inside).most_common(1)[0]
            homes.setdefault((fold, source, label), {})[group] = len(inside)
        placed |= members.keys()
    return homes


def _compute_shares(
    homes: dict[tuple[str, str, int], dict[int, int]], config: PartitionConfig, draw: int
) -> dict[tuple[str, int], np.ndarray]:
    """Return (source, label) -> each client's share (num_clients,) of its scans."""
    n, cells = config.num_clients, sorted({home[1:] for home in homes})
    if config.kind == "dirichlet":
        by_label = {
            label: _make_generator(config.seed, draw, label).dirichlet([config.concentration] * n)
            for label in {label for _, label in cells}
        }
        return {(source, label): by_label[label] for source, label in cells}
    if config.kind == "site":
        return {(site, label): _share_site(site) for site, label in cells}
    return dict.fromkeys(cells, np.ones(n))


def _share_site(site: str) -> np.ndarray:
    own = [float(site == home) for home in HOSPITALS.values()]
    own[list(HOSPITALS).index("IXI")] += GUESTS.get(site, 0.0)
    return np.array(own)


def _deal(
    groups: dict[int, int], share: np.ndarray, generator: np.random.Generator
) -> dict[int, int]:
    """Return group -> client: the largest groups first, each to the client that lacks most."""
    lacks = share / share.sum() * sum(groups.values())
    lacks[share == 0] = -np.inf
    lacks += generator.uniform(0, 1e-6, len(share))  # ties go to nobody in particular
    order = generator.permutation(sorted(groups))
    owner = {}
    for group in sorted(order.tolist(), key=lambda g: -groups[g]):
        client = int(lacks.argmax())
        lacks[client] -= groups[group]
        owner[group] = client
    return owner


def _find_problem(rows: Sequence[Row], clients: Sequence[int], config: PartitionConfig) -> str:
    """Return the reason that these clients cannot train; empty if they can."""
    has_val = any(row.fold == "val" for row in rows)
    for client in range(config.num_clients):
        mine = [row for row, c in zip(rows, clients, strict=True) if c == client]
        labels = Counter(row.label for row in mine if row.fold == "train")
        if labels.total() < config.min_scans:
            return (
                f"client {client} has {labels.total()} training scans of the {config.min_scans} "
                "that min_scans asks for"
            )
        if len(labels) < 2:
            return f"client {client} has training scans of class {next(iter(labels))} alone"
        if has_val and not any(row.fold == "val" for row in mine):
            return f"client {client} has no validation scans"
    return ""


def _make_generator(*seed: int | str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(repr(seed).encode())])
