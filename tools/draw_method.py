"""Command that writes docs/method.svg, the figure of the tab About, for the README.

python -m tools.draw_method
"""

from __future__ import annotations

from pathlib import Path

from demo.about.method_figure import draw_method_figure

TARGET = Path(__file__).resolve().parents[1] / "docs" / "method.svg"
# the page's colours, on a ground of its own so that it reads on a light and on a dark page
STYLE = """<style>
.mf-method text { font: 14px system-ui, sans-serif; fill: #1b232c; text-anchor: middle; }
.mf-method text.mf-left { text-anchor: start; fill: #4a5663; }
.mf-method text.mf-title { font-size: 15.5px; font-weight: 700; }
.mf-method .mf-box { fill: #ffffff; stroke: #4a5663; stroke-width: 1.6; }
.mf-method .mf-shared { stroke: #0f766e; stroke-width: 2.4; }
.mf-method .mf-home { stroke: #7a4b00; stroke-dasharray: 5 3; }
.mf-method .mf-flow { stroke: #4a5663; stroke-width: 1.6; fill: none; }
.mf-method .mf-tip { fill: #4a5663; }
</style><rect width="100%" height="100%" fill="#f7f9fa"/>"""


def render_file() -> str:
    """Return the figure as a whole SVG file."""
    head, separator, body = draw_method_figure().partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}{separator}{STYLE}{body}\n"


if __name__ == "__main__":
    TARGET.write_text(render_file(), encoding="utf-8")
    print(f"wrote {TARGET}")
