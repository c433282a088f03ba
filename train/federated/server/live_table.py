"""Live table of the clients: redrawn on a terminal, printed line by line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from train.federated.metrics import SECONDS

HEADER = "client   scans  loss     score    clean    pgd      seconds  doing"
SHOWN_METRICS = ("loss", "clean", "pgd", SECONDS)  # metrics of a reply


class LiveTable:
    """Activity and last metrics of each client."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._rows: dict[int, dict[str, str]] = {}
        self._drawn = 0

    def add_client(self, client: int, scans: int) -> None:
        """Add a row for a client that has registered with `scans` training scans."""
        self._rows[client] = {"scans": str(scans), "doing": "waits"}

    def set_activity(self, clients: list[int], doing: str) -> None:
        """Show the clients' activity."""
        for client in clients:
            self._rows.setdefault(client, {})["doing"] = doing
        self._draw()

    def show_reply(self, client: int, reply: Mapping[str, float] | str) -> None:
        """Show a client's metrics, or the reason why it failed."""
        row = self._rows.setdefault(client, {})
        activity = row.get("doing", "")
        if isinstance(reply, str):
            row["doing"] = "failed"
            self.print_line(f"client {client}: {reply}")
            return
        shown = {
            name: f"{value:.1f}" if name == SECONDS else f"{value:.4f}"
            for name, value in reply.items()
            if name in SHOWN_METRICS
        }
        row |= shown
        row["doing"] = "waits"
        if self._is_terminal:
            self._draw()
        else:
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.print_line(f"client {client} {activity}: {text}")

    def print_line(self, text: str) -> None:
        """Print a line above the table that stays."""
        self._erase()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self._draw()

    def close(self) -> None:
        """Leave the table on the screen as it is."""
        self._drawn = 0

    def _draw(self) -> None:
        if not self._is_terminal:
            return
        self._erase()
        lines = [HEADER]
        for client, row in sorted(self._rows.items()):
            cells = [row.get(k, "-") for k in ("scans", "loss", "score", "clean", "pgd", "seconds")]
            lines.append(
                f"{client:<8} {cells[0]:<6} "
                + " ".join(f"{cell:<8}" for cell in cells[1:])
                + f" {row.get('doing', '-')}"
            )
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0
