"""A hospital's policy: limits on what may leave, in a file that no server can change."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor


class PolicyError(ValueError):
    """The update violates the hospital's policy, or the policy cannot be read."""


@dataclass(frozen=True)
class Policy:
    """Patterns of names that may leave, largest size in MB, clipping and noise of the update.

    What is personal never leaves in any case: the experiment says so. This narrows it further.
    `clip` above 0 scales a round's update to that L2 norm at most, and `noise` adds Gaussian noise
    of standard deviation noise * clip to each number of it.
    """

    allow: tuple[str, ...] = ("*",)
    max_mb: float = 200.0
    clip: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if min(self.max_mb, self.clip, self.noise) < 0 or (self.noise and not self.clip):
            raise PolicyError("max_mb, clip and noise must be 0 or more, noise needs a clip")

    def applied(self, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a round's tensors as they may leave: checked, clipped, with noise.

        Raises:
            PolicyError: a name is not allowed, or it is too much.
        """
        barred = [n for n in new if not any(fnmatchcase(n, pattern) for pattern in self.allow)]
        if barred:
            raise PolicyError(f"the policy of this hospital lets no {barred[0]!r} out")
        size = sum(t.nbytes for t in new.values()) / 1e6
        if size > self.max_mb:
            raise PolicyError(f"the policy of this hospital lets {self.max_mb} MB out, not {size}")
        if not self.clip:
            return dict(new)
        delta = {name: value - old[name] for name, value in new.items()}
        norm = float(torch.stack([d.square().sum() for d in delta.values()]).sum().sqrt())
        scale, sigma = min(1.0, self.clip / max(norm, 1e-12)), self.noise * self.clip
        return {
            name: old[name] + d * scale + sigma * torch.randn_like(d) for name, d in delta.items()
        }


def read_policy(path: str) -> Policy:
    """Read the policy of a TOML file; without a file the default policy.

    Raises:
        PolicyError: the file is missing, is no TOML, or has a key that no policy has.
    """
    if not path:
        return Policy()
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"the policy of this hospital cannot be read: {error}") from None
    known = {f.name for f in fields(Policy)}
    for key in values:
        if key not in known:
            raise PolicyError(f"unknown key {key!r} in the policy: choose from {sorted(known)}")
    if "allow" in values:
        values["allow"] = tuple(values["allow"])
    return Policy(**values)
