"""Commit of the code that trains a weights file."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit that the code is at, 'unknown' outside a checkout or without git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
