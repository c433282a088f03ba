"""A result file that grows row by row: what is finished survives a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.parallel import say
from bench.provenance import code_facts, key_of, now, source_key
from core.checkpoint import write_atomic

Figures = dict[str, Any]
MANY, SHORT = 4, 40  # differences that a sentence names; characters of values that are shown


class ResultFileError(ValueError):
    """The result file holds figures of something else."""


class ResultFile:
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
            ResultFileError: the file holds rows of another identity and `fresh` is not set.
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
            self._take_over(json.loads(self.path.read_text(encoding="utf-8")), identity)

    def row(self, name: str, compute: Callable[[], Figures], **settings: Any) -> Figures:
        """The row of this name: the finished one, else computed now and written.

        `settings` decide this row alone: where they have changed, it is computed anew.
        """
        rows: dict[str, Figures] = self.content["rows"]
        if held := self.held(name, **settings):
            same = held.get("commit") == self.content["provenance"]["commit"]
            other = "" if same else f", measured with commit {held.get('commit')}"
            say(f"{name}: kept from {held['date']}{other}")
            return held
        if name in rows:
            say(f"{name}: of other settings, measured again")
        figures, facts = self._measured(compute)
        return self._written(name, {**figures, **_key(settings), **facts})

    def held(self, name: str, **settings: Any) -> Figures | None:
        """The finished row of this name and these settings, if there is one."""
        row: Figures | None = self.content["rows"].get(name)
        return row if row and row.get("key") == _key(settings).get("key") else None

    def add(self, name: str, compute: Callable[[], Figures]) -> Figures:
        """A finished row with figures added; when and by which code is kept under 'additions'."""
        row = self.content["rows"][name]
        figures, facts = self._measured(compute)
        additions = [*row.get("additions", []), facts]
        wall_s = round(row["wall_s"] + facts["wall_s"], 1)
        return self._written(name, {**row, **figures, "wall_s": wall_s, "additions": additions})

    def _measured(self, compute: Callable[[], Figures]) -> tuple[Figures, Figures]:
        """Figures, and their time, date, code and machine."""
        self._start, self._spent = time.monotonic(), 0.0
        figures = compute()
        return figures, {"wall_s": self._seconds(), "date": now(), **_of_row(self.content)}

    def _written(self, name: str, row: Figures) -> Figures:
        self.content["rows"][name] = row
        self.content["unfinished"].pop(name, None)
        self.write()
        say(f"{name}: done in {row['wall_s']} s")
        return row

    def begun(self, name: str, start: Figures) -> Figures:
        """Return the state that an earlier run of the same code has kept of a row, or `start`.

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

    def close(self) -> None:
        """Writes the file and says where it is."""
        self.write()
        say(f"written to {self.path}")

    def _seconds(self) -> float:
        """Of the row that is being computed, runs before a kill included."""
        return round(self._spent + time.monotonic() - self._start, 1)

    def _take_over(self, old: Figures, identity: Figures) -> None:
        if old.get("key") != self.content["key"] or old.get("bench") != self.content["bench"]:
            other = _differences(old.get("provenance", {}), identity)
            raise ResultFileError(
                f"{self.path} holds figures of other weights, scans or settings ({other}): give "
                "those, name another --out, or pass --fresh, which forgets all that it holds"
            )
        self.content["rows"], self.content["warnings"] = old["rows"], old["warnings"]
        self.content["unfinished"] = old.get("unfinished", {})
        self.content = {**old, **self.content}  # what else was made of the rows, until it is anew
        for row in old["rows"].values():  # the file goes on elsewhere: each row keeps its own
            row.update({**_of_row(old), **row})


def _differences(old: Figures, new: Figures) -> str:
    """Describe the settings that differ, with both values where they are short."""
    read = json.loads(json.dumps(_rounded(new)))
    before, now = (_flat({key: values.get(key) for key in new}) for values in (old, read))
    pairs = {n: (before.get(n), now.get(n)) for n in {**now, **before}}
    found = [
        f"{name}: {a} there, {b} now" if len(f"{a}{b}") < SHORT else name
        for name, (a, b) in pairs.items()
        if a != b
    ]
    return "; ".join(found[:MANY]) + (f"; and {len(found) - MANY} more" if found[MANY:] else "")


def _flat(values: Figures) -> Figures:
    found: Figures = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= {f"{key} {name}": inner for name, inner in _flat(value).items()}
        else:
            found[key] = value
    return found


def _key(settings: Figures) -> Figures:
    return {"key": key_of(settings)} if settings else {}


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
