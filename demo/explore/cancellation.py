"""Cancellation: results of a request that a newer one has replaced are dropped."""

from __future__ import annotations


class RequestGeneration:
    """Generation counters of a visitor's requests; results of an older generation are dropped.

    Cancelling an event is not enough: a step that already runs still finishes, and its late
    result would overwrite the newer one.
    """

    def __init__(self) -> None:
        self.reading = self.series = 0

    def end_reading(self) -> None:
        """Make the reading of a slice obsolete; the reading of a series continues."""
        self.reading += 1

    def end(self) -> None:
        """Make every running request obsolete."""
        self.reading += 1
        self.series += 1
