"""Files that are made when they are asked for: from memory to the visitor's browser, never on disk.

The handler's answer is a link that holds the file. The page follows it at once and then puts a
sentence in its place, so that nothing of the file stays in the page.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from demo.explore.results_view import link
from demo.serving.events import PRIVATE

if TYPE_CHECKING:
    import gradio as gr

SAVE = """(html) => {
  const holder = document.createElement("div");
  holder.innerHTML = html;
  const link = holder.querySelector("a[download]");
  if (!link) return html;
  link.click();
  holder.innerHTML = '<p class="mf-note" role="status">Handed to your browser: <b></b></p>';
  holder.querySelector("b").textContent = link.download;
  return holder.innerHTML;
}"""


class GeneratedFile(NamedTuple):
    """A file in memory."""

    name: str
    kind: str  # media type
    data: bytes


def attach_download(
    button: gr.Button, make: Callable[..., GeneratedFile | str], inputs: list[Any], place: gr.HTML
) -> None:
    """A press of `button` hands over what `make` returns; a string says why there is no file."""

    def answer(*values: Any) -> str:
        made = make(*values)
        return said(made) if isinstance(made, str) else link(*made, made.name)

    quietly = {**PRIVATE, "show_progress": "minimal", "show_progress_on": place}
    asked = button.click(answer, inputs, place, **quietly)
    asked.success(None, place, place, js=SAVE, **PRIVATE)


def said(words: str) -> str:
    """A sentence instead of a file, as HTML."""
    return f'<p class="mf-note" role="status">{escape(words)}</p>'
