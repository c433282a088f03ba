"""A result file that grows row by row: what is finished survives a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.progress import say
from bench.provenance import code_facts, key_of, now, source_key
from core.checkpoint import write_atomic

Figures = dict[str, Any]


class StoreError(ValueError):
    """The result file holds figures of something else."""


class Store:
    """results/NAME.json: provenance, warnings, rows with their time, date, commit and machine."""

    def __init__(
        self, path: str | Path, bench: str, identity: Figures, facts: Figures, fresh: bool = False
    ) -> None:
        """Opens or begins a file.

        Args:
            path: the JSON file.
            bench: name of the command.
            identity: what decides the figures: weights, split, settings.
            facts: further provenance, such as the machine.
            fresh: forget what the file holds.

        Raises:
            StoreError: the file holds rows of another identity and `fresh` is not set.
        """
        self.path, self._code = Path(path), source_key()
        self._start, self._spent = time.monotonic(), 0.0  # of the row that is being computed
        self.content: Figures = {
            "bench": bench,
            "key": key_of(identity),
            # the code that is loaded now, whatever is checked out while rows are measured
            "provenance": {**identity, **facts, **code_facts(), "date": now()},
            "warnings": [],
            "rows": {},
            "unfinished": {},
        }
        if self.path.is_file() and not fresh:
            self._take_over(json.loads(self.path.read_text(encoding="utf-8")))

    def row(self, name: str, compute: Callable[[], Figures], **settings: Any) -> Figures:
        """The row of this name: the finished one, else computed now and written.

        `settings` decide this row alone: where they have changed, it is computed anew.
        """
        rows: dict[str, Figures] = self.content["rows"]
        key = {"key": key_of(settings)} if settings else {}
        if name in rows:
            if rows[name].get("key") == key.get("key"):
                same = rows[name].get("commit") == self.content["provenance"]["commit"]
                other = "" if same else f", measured with commit {rows[name].get('commit')}"
                say(f"{name}: kept from {rows[name]['date']}{other}")
                return rows[name]
            say(f"{name}: of other settings, measured again")
        self._start, self._spent = time.monotonic(), 0.0
        figures = compute()
        took = self._seconds()
        rows[name] = {**figures, **key, "wall_s": took, "date": now(), **_of_row(self.content)}
        self.content["unfinished"].pop(name, None)
        self.write()
        say(f"{name}: done in {took} s")
        return rows[name]

    def begun(self, name: str, start: Figures) -> Figures:
        """What an earlier run of the same code has kept of a row, or `start`.

        `start` decides what is gone on with: where what it holds under 'of' differs, nothing is.
        """
        kept: Figures | None = self.content["unfinished"].get(name)
        if kept is None or kept["of"] != start["of"]:
            return start
        if kept["code"] != self._code:
            say(f"{name}: begun by other code, measured again")
            return start
        say(f"{name}: goes on after {kept['done']} of {len(kept['of'])}")
        self._spent = kept.get("wall_s", 0.0)
        return {k: v for k, v in kept.items() if k not in ("code", "wall_s")}

    def keep(self, name: str, state: Figures) -> None:
        """Keeps a row's unfinished state apart from the rows: it is no figure yet."""
        own = {"code": self._code, "wall_s": self._seconds()}
        self.content["unfinished"][name] = {**state, **own}
        self.write()

    def warn(self, message: str) -> None:
        """Keeps a self-check that failed; said once."""
        if message not in self.content["warnings"]:
            say(f"warning: {message}")
            self.content["warnings"].append(message)
            self.write()

    def write(self) -> None:
        """Writes the file in one step."""
        text = json.dumps(_rounded(self.content), indent=1, allow_nan=False)
        write_atomic(self.path, (text + "\n").encode())

    def _seconds(self) -> float:
        """Of the row that is being computed, runs before a kill included."""
        return round(self._spent + time.monotonic() - self._start, 1)

    def _take_over(self, old: Figures) -> None:
        if old.get("key") != self.content["key"] or old.get("bench") != self.content["bench"]:
            raise StoreError(
                f"{self.path} holds figures of other weights, scans or settings: "
                "name another --out, or pass --fresh to replace it"
            )
        self.content["rows"], self.content["warnings"] = old["rows"], old["warnings"]
        self.content["unfinished"] = old.get("unfinished", {})
        self.content = {**old, **self.content}  # what else was made of the rows, until it is anew
        for row in old["rows"].values():  # the file goes on elsewhere: each row keeps its own
            row.update({**_of_row(old), **row})


def _of_row(content: Figures) -> Figures:
    """Code and machine, which may be others for the next row."""
    facts: Figures = content["provenance"]
    return {name: facts[name] for name in ("commit", "dirty", "machine") if name in facts}


def _rounded(value: Any) -> Any:
    """Six significant digits are plenty; what is no number becomes null, which JSON can hold."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
