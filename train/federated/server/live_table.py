"""The live table: a line a client, redrawn on a terminal, printed as it comes elsewhere."""

from __future__ import annotations

import sys

HEADER = "client   scans  loss     score    clean    pgd      seconds  doing"


class Table:
    """Shows what each client does; `say` prints a line above that stays."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._rows: dict[int, dict[str, str]] = {}
        self._drawn = 0

    def scans(self, client: int, count: int) -> None:
        """Show a client that has introduced itself."""
        self._rows[client] = {"scans": str(count), "doing": "waits"}

    def ask(self, clients: list[int], doing: str) -> None:
        """Show that these clients were asked to do something."""
        for client in clients:
            self._rows.setdefault(client, {})["doing"] = doing
        self._draw()

    def heard(self, client: int, figures: dict[str, float] | str) -> None:
        """Show a client's metrics, or the reason of its failure."""
        row = self._rows.setdefault(client, {})
        what = row.get("doing", "")
        if isinstance(figures, str):
            row["doing"] = "failed"
            self.say(f"client {client}: {figures}")
            return
        shown = {k: f"{v:.1f}" if k == "seconds" else f"{v:.4f}" for k, v in figures.items()}
        row |= shown
        row["doing"] = "waits"
        if self._is_terminal:
            self._draw()
        else:
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"client {client} {what}: {text}")

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._erase()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self._draw()

    def close(self) -> None:
        """Stop redrawing and leave the table as it is."""
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
