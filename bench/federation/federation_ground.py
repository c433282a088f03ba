"""Small federations for `python -m bench federation`: one preset, and what a row changes in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench.federation.trainings import Federation, Places, federation
from core.checkpoint import write_atomic
from train.data.corpus import Corpus, load_corpus

PRESET = "federation-bench"
LEARNING = "multi-source"  # 31 groups of validation scans, as leak-free has, tell no points apart
# an engine shows what it is in a few steps
SHORT = """
num_rounds = 2
eval_every = 1
min_clients = 2
[federated.partition]
num_clients = 3
min_scans = 2
max_scans = 40
"""


@dataclass(frozen=True)
class Ground:
    """What the rows stand on: where scans and runs lie, the engine rows' protocol, the seed."""

    places: Places
    protocol: str = "leak-free"
    learning: str = LEARNING
    seed: int = 0

    def under(self, folder: Path) -> Ground:
        """The same with its runs elsewhere."""
        return replace(self, places=replace(self.places, runs=folder))

    def federation(
        self,
        *methods: str,
        changes: str = "",
        protocol: str = "",
        seed: int | None = None,
        preset: str = PRESET,
    ) -> Federation:
        """A federation of a preset with methods laid over it.

        `changes` are made to it first: lines of TOML that begin in its table [federated].
        """
        if changes:
            text = f'extends = "{preset}"\n[federated]\n{changes}'
            name = f"{preset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"
            path = (self.places.runs / name).resolve()
            write_atomic(path, text.encode())
            preset = str(path)
        preset = "+".join([preset, *methods])
        protocol, seed = protocol or self.protocol, self.seed if seed is None else seed
        p = self.places
        return federation(
            preset, protocol, seed, _corpus(protocol, p.data, p.cache, p.manifests), p
        )


def digests(folder: Path) -> dict[str, str]:
    """Sha256 of every file under a run's folder, by its name there; the log, with times, is out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def differing(a: Path, b: Path) -> list[str]:
    """Names of files that two runs' folders do not both hold with the same bytes."""
    first, second = digests(a), digests(b)
    return sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))


@lru_cache(maxsize=1)
def _corpus(protocol: str, data: Path, cache: Path, manifests: Path) -> Corpus:
    return load_corpus(protocol, data, cache, manifests)
