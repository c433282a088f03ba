"""Hospital that reads a test scan: the one that holds its patients in the weights' federation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.weights import Systems
from train.data.dataset import ScanDataset
from train.data.partition import PartitionConfig, assign, list_rows
from train.data.split import Manifest

Reader = int | None  # a hospital's number; None where there are none


def find_readers(systems: Systems, test: ScanDataset, trained: Manifest) -> list[int | None]:
    """Return the key in `systems` of the hospital that reads each scan of `test`.

    That is the hospital whose patients are like the scan's: the partition of the training scans
    deals the test scans as well. The first system reads scans whose hospital is not in `systems`,
    and all scans where the weights were trained on another split than the one `test` is of.
    """
    first = next(iter(systems))
    if len(systems) == 1 or test.manifest is None or test.manifest.sha256 != trained.sha256:
        return [first] * len(test)
    config = PartitionConfig.from_dict(systems[first].info["federated"])
    return [reader if reader in systems else first for reader in deal(config, test, trained)]


def group_by_reader(readers: Sequence[Reader]) -> tuple[dict[Reader, list[int]], Tensor]:
    """Return the rows of each reader, and the order (N,) that sorts their joined results by row."""
    rows: dict[Reader, list[int]] = {reader: [] for reader in readers}
    for i, reader in enumerate(readers):
        rows[reader].append(i)
    return rows, torch.tensor([i for own in rows.values() for i in own]).argsort()


def deal(config: PartitionConfig, test: ScanDataset, trained: Manifest) -> list[int]:
    """Return the number of the hospital that each scan of `test` falls to, from 1."""
    owners = assign(list_rows(trained), config)
    homes = {entry.sha256: owner + 1 for entry, owner in zip(trained.entries, owners, strict=True)}
    return [homes[entry.sha256] for entry in test.entries]
