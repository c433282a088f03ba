"""Command that writes the figures of the tab About as SVG files for the documents.

python -m tools.draw_method
"""

from __future__ import annotations

import re
from pathlib import Path

from demo.about import svg
from demo.about.figures import build_figures

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FONT = ".mf-svg text { font-family: system-ui, sans-serif; }"


def render_files() -> dict[Path, str]:
    """Return the content of each figure's file."""
    style = read_style()
    return {DOCS / f"{f.name}.svg": f"{svg.draw_sheet(f, style)}\n" for f in build_figures()}


def read_style() -> str:
    """Read the page's rules for figures with the light page's colours in place of variables."""
    page = (ROOT / "demo" / "rendering" / "style.css").read_text(encoding="utf-8")
    light = page[page.index(":root {") : page.index("}", page.index(":root {"))]
    colours = dict(re.findall(r"(--[\w-]+): (#\w+)", light))
    rules = (ROOT / "demo" / "about" / "figures.css").read_text(encoding="utf-8")
    rules = re.sub(r"/\*.*?\*/\s*", "", rules, flags=re.DOTALL)
    return f"{FONT}\n" + re.sub(r"var\((--[\w-]+)\)", lambda m: colours[m[1]], rules)


if __name__ == "__main__":
    for path, text in render_files().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
