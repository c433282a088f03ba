"""Outgoing policy of a hospital: a file on its own machine that no server can change."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor


class PolicyError(ValueError):
    """Violation of the hospital's policy, or a policy that cannot be read."""


@dataclass(frozen=True)
class Policy:
    """Allowed tensor names (patterns), payload limit in megabytes, clipping and noise of updates.

    Personal tensors never leave, whatever the policy says. `clip` above 0 scales a round's update
    to that L2 norm at most, and `noise` adds Gaussian noise of standard deviation noise * clip to
    each number of it.
    """

    allow: tuple[str, ...] = ("*",)
    max_mb: float = 200.0
    clip: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if min(self.max_mb, self.clip, self.noise) < 0 or (self.noise and not self.clip):
            raise PolicyError("max_mb, clip and noise must be 0 or more, noise needs a clip")

    def apply(self, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a round's tensors, clipped and with noise as the policy says.

        Raises:
            PolicyError: a name is not allowed, or the payload is too large.
        """
        barred = [n for n in new if not any(fnmatchcase(n, pattern) for pattern in self.allow)]
        if barred:
            raise PolicyError(f"the policy of this hospital does not allow {barred[0]!r} to leave")
        size = sum(t.nbytes for t in new.values()) / 1e6
        if size > self.max_mb:
            raise PolicyError(f"the policy of this hospital allows {self.max_mb} MB, not {size}")
        if not self.clip:
            return dict(new)
        delta = {name: value - old[name] for name, value in new.items()}
        norm = float(torch.stack([d.square().sum() for d in delta.values()]).sum().sqrt())
        scale, sigma = min(1.0, self.clip / max(norm, 1e-12)), self.noise * self.clip
        return {
            name: old[name] + d * scale + sigma * torch.randn_like(d) for name, d in delta.items()
        }


def read_policy(path: str) -> Policy:
    """Read the policy in a TOML file; the default one if no file is named.

    Raises:
        PolicyError: the file is missing, is not TOML, or has an unknown key.
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
