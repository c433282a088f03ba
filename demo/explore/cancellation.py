"""What a visitor wants now, so that nothing older has the last word."""

from __future__ import annotations


class Turn:
    """What a visitor wants now; a step of anything earlier that is still on its way is dropped.

    Cancelling alone does not do that: a step that runs when it comes ends in its own time, and
    would have the last word.
    """

    def __init__(self) -> None:
        self.reading = self.series = 0

    def end_reading(self) -> None:
        """Ends the reading of a slice; the reading of a whole series goes on."""
        self.reading += 1

    def end(self) -> None:
        """Ends all that was begun."""
        self.reading += 1
        self.series += 1
