"""Screenshots of the page for the documents: every tab with content, dark and light.

python -m tools.screenshots docs
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench.app.browser import open_browser
from bench.app.load_test import make_scans
from bench.app.server import APP, run_app

TABS = ("explore", "batch", "learn", "about")
THEMES = ("dark", "light")
SET_LIGHT = """light => {
  document.body.classList.toggle("dark", !light);
  document.documentElement.classList.toggle("mf-light", light);
}"""
THEME_MS = 500  # after which colours have stopped changing
# of the lesson: the step's tab, its button, and the element that then appears
LESSON = (
    ("lesson-0", "look-1", "#learned-0 .mf-output"),
    ("lesson-1", "lesson-attack", "#learned-1 >> text=Step 7 of 7"),
    ("lesson-2", "lesson-detect", "#learned-2 .mf-chart"),
    ("lesson-3", "lesson-purify", "#learned-3 .mf-output"),
    ("lesson-4", "lesson-vote", "#learned-4 .mf-output"),
    ("lesson-5", "lesson-heat", "#learned-5 img"),
    ("lesson-6", "lesson-change", "#learned-6 img"),
    ("lesson-7", "quiz-new", "#quiz-view img"),
)


def visit_tabs(app: Sequence[str] = APP) -> Iterator[tuple[str, Any]]:
    """Yield each tab's name, and the page that shows it filled."""
    with run_app(app) as served, open_browser() as guest:
        page = guest.open(served.url, 1600, 1000)
        page.wait_for_selector(".mf-line:has-text('finished example')")
        for tab in TABS:
            show_tab(page, tab)
            yield tab, page


def set_theme(page: Any, theme: str) -> None:
    """Show the page in a theme, as its address with `__theme` does (demo/serving/launch.py)."""
    page.evaluate(SET_LIGHT, theme == "light")
    page.wait_for_timeout(THEME_MS)


def show_tab(page: Any, tab: str) -> None:
    """Open a tab and fill it."""
    page.get_by_role("tab", name=tab.capitalize(), exact=True).click()
    if tab == "learn":
        take_step(page, *LESSON[0])
    elif tab == "batch":
        files = [
            {"name": f"{i}.png", "mimeType": "image/png", "buffer": data}
            for i, data in enumerate(make_scans(4))
        ]
        page.set_input_files("#batch-files input[type=file]", files)
        page.wait_for_selector("#batch-main tbody tr:nth-child(4)")
        page.click("#batch-run")
        page.wait_for_selector("#batch-main p:has-text('Done: 4 of 4')")
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)


def take_step(page: Any, step: str, button: str, appears: str) -> None:
    """Take one step of the lesson."""
    page.click(f"#{step}-button")
    page.click(f"#{button}")
    page.wait_for_selector(appears)


def save_screenshot(page: Any, path: Path) -> None:
    """Save the page at 960 x 600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").resize((960, 600), Image.Resampling.LANCZOS).save(path, quality=82)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    folder = parser.parse_args().folder
    for tab, page in visit_tabs():
        for theme in THEMES:
            set_theme(page, theme)
            save_screenshot(page, folder / f"{tab}-{theme}.jpg")


if __name__ == "__main__":
    main()
