"""Provenance of a weights file: the commit of the code."""

from __future__ import annotations

import subprocess
from pathlib import Path


def find_commit() -> str:
    """Return the code's commit, 'unknown' outside a checkout or without git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
