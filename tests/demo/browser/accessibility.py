"""Accessibility of a page, checked by axe-core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import axe_playwright_python

from tools.screenshots import THEME_MS

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def find_violations(page: Any, rules: Sequence[str] = RULES) -> list[dict[str, Any]]:
    """Return a page's violations: rule, impact, number, first element.

    `rules` are names of axe-core's rules, or tags of them.
    """
    page.wait_for_timeout(THEME_MS)
    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8"))
    result = page.evaluate("rules => axe.run(document, {runOnly: rules})", [*rules])
    return [
        {
            "rule": v["id"],
            "impact": v["impact"],
            "count": len(v["nodes"]),
            "first": v["nodes"][0]["html"][:160],
        }
        for v in result["violations"]
    ]
