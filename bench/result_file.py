"""Result files, written row by row: finished rows survive a kill."""

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
MAX_DIFFERENCES, MAX_VALUE_LENGTH = 4, 40  # named in an error; characters of a shown value


class ResultFileError(ValueError):
    """The result file holds figures of something else."""


class ResultFile:
    """A file results/NAME.json: provenance, warnings, rows with time, date, commit, machine."""

    def __init__(
        self, path: str | Path, bench: str, identity: Figures, facts: Figures, fresh: bool = False
    ) -> None:
        """Opens or starts a file.

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

    def row(
        self, name: str, compute: Callable[[], Figures], again: bool = False, **settings: Any
    ) -> Figures:
        """Returns the finished row of this name, else computes and writes it.

        `settings` decide this row alone: where they have changed, or where it lacks something
        (`again`), it is computed anew; the old one stays in the file until then.
        """
        provenance = self.content["provenance"]
        if (held := self.held(name, **settings)) and not again:
            same = held.get("commit") == provenance["commit"]
            other = "" if same else f", measured with commit {held.get('commit')}"
            say(f"{name}: kept from {held['date']}{other}")
            return held
        if name in self.content["rows"]:
            say(f"{name}: of other settings or scans, measured again")
        self._start, self._spent = time.monotonic(), 0.0
        row = {**compute(), **_key(settings)}
        row |= {"wall_s": self._seconds(), "date": now(), **_of_row(self.content)}
        self.content["rows"][name] = row
        self.content["unfinished"].pop(name, None)
        self.write()
        say(f"{name}: done in {row['wall_s']} s")
        return row

    def held(self, name: str, **settings: Any) -> Figures | None:
        """Returns the finished row of this name and these settings, if there is one."""
        row: Figures | None = self.content["rows"].get(name)
        return row if row and row.get("key") == _key(settings).get("key") else None

    def begun(self, name: str, start: Figures) -> Figures:
        """Returns a row's unfinished state of an earlier run of the same code, or `start`.

        It resumes only where both hold the same under 'of'.
        """
        kept: Figures | None = self.content["unfinished"].get(name)
        if kept is None or kept["of"] != start["of"]:
            return start
        if kept["code"] != self._code:
            say(f"{name}: started by other code, measured again")
            return start
        say(f"{name}: resumes after {kept['done']} of {len(kept['of'])}")
        self._spent = kept.get("wall_s", 0.0)
        return {k: v for k, v in kept.items() if k not in ("code", "wall_s")}

    def keep(self, name: str, state: Figures) -> None:
        """Saves a row's unfinished state apart from the finished rows."""
        own = {"code": self._code, "wall_s": self._seconds()}
        self.content["unfinished"][name] = {**state, **own}
        self.write()

    def warn(self, message: str) -> None:
        """Records a failed self-check; printed once."""
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
        """Returns the seconds of the row being computed, with those of runs before a kill."""
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
        for row in old["rows"].values():  # measured elsewhere from now on: each row keeps its own
            row.update({**_of_row(old), **row})


def _differences(old: Figures, new: Figures) -> str:
    """Returns the settings that differ, with both values where they are short."""
    read = json.loads(json.dumps(_rounded(new)))
    before, now = (_flat({key: values.get(key) for key in new}) for values in (old, read))
    pairs = {n: (before.get(n), now.get(n)) for n in {**now, **before}}
    found = [
        f"{name}: {a} there, {b} now" if len(f"{a}{b}") < MAX_VALUE_LENGTH else name
        for name, (a, b) in pairs.items()
        if a != b
    ]
    more = len(found) - MAX_DIFFERENCES
    return "; ".join(found[:MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


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
    """Returns a row's code and machine, which may differ from row to row."""
    facts: Figures = content["provenance"]
    return {name: facts[name] for name in ("commit", "dirty", "machine") if name in facts}


def _rounded(value: Any) -> Any:
    """Rounds to six significant digits; replaces NaN and infinity by None, for JSON."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
