"""Chromium as a visitor's browser, which watches every request."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
OWN = re.compile(r"http://127\.0\.0\.1:\d+/")
MISSING = (
    "this needs Chromium (or name it with CHROMIUM=) and the package playwright: "
    "pip install -c requirements.txt -e '.[dev]'"
)


@dataclass
class Visitor:
    """A browser whose pages reach this machine alone; other requests and errors are recorded."""

    browser: Any
    timeout: int = 30_000  # ms that a page waits for what it was told to, Playwright's own
    strangers: list[str] = field(default_factory=list)  # requests that would have left
    errors: list[str] = field(default_factory=list)  # of the page's scripts
    contexts: list[Any] = field(default_factory=list)  # one for each page

    def open(self, url: str, width: int = 1280, height: int = 800, *, touch: bool = False) -> Any:
        """Opens a page in a context of its own, where the system prefers light."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="light", has_touch=touch
        )
        self.contexts.append(context)
        context.route(re.compile(r"^(?!data:|blob:)"), self._watch)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(self.timeout)
        page.goto(url)
        page.wait_for_selector("#analyse")
        return page

    def _watch(self, route: Any) -> None:
        if OWN.match(route.request.url):
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()


@contextmanager
def open_browser() -> Iterator[Visitor]:
    """Starts Chromium and closes it at the end.

    Raises:
        ValueError: Chromium or a package is missing.
    """
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        raise ValueError(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield Visitor(browser, timeout=120_000)
        finally:
            browser.close()
