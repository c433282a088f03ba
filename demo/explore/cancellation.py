"""Cancellation: results of a request that a newer one has replaced are dropped."""

from __future__ import annotations


class RequestGeneration:
    """Generation counters of a visitor's requests; results of an older generation are dropped.

    Cancelling an event is not enough: a step that already runs still finishes, and its late
    result would overwrite the newer one.
    """

    def __init__(self) -> None:
        self.reading = self.series = 0
        self.finished = -1  # generation of the last reading that came to its end

    def finish_reading(self) -> None:
        """Note that the reading has come to its end; what follows from it may start."""
        self.finished = self.reading

    @property
    def is_finished(self) -> bool:
        """True if the newest reading has come to its end and nothing has replaced it."""
        return self.finished == self.reading

    def end_reading(self) -> None:
        """Make the reading of a slice obsolete; the reading of a series continues."""
        self.reading += 1

    def end(self) -> None:
        """Make every running request obsolete."""
        self.reading += 1
        self.series += 1
