"""Downloads of files made in memory, which never touch the disk.

The handler answers with a link that holds the file. A script follows it at once and replaces it by
a sentence, so that nothing of the file stays in the page.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from demo.rendering.html import render_link
from demo.serving.events import PRIVATE

if TYPE_CHECKING:
    import gradio as gr

SAVE = """(html) => {
  const holder = document.createElement("div");
  holder.innerHTML = html;
  const link = holder.querySelector("a[download]");
  if (!link) return html;
  link.click();
  holder.innerHTML = '<p class="mf-note" role="status">Downloaded: <b></b></p>';
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
    """Make `button` download the file that `make` returns; a string says why there is none."""

    def answer(*values: Any) -> str:
        file = make(*values)
        return render_note(file) if isinstance(file, str) else render_link(*file, file.name)

    options = {**PRIVATE, "show_progress": "minimal", "show_progress_on": place}
    click = button.click(answer, inputs, place, **options)
    click.success(None, place, place, js=SAVE, **PRIVATE)


def render_note(text: str) -> str:
    """Render a sentence in place of a file."""
    return f'<p class="mf-note" role="status">{escape(text)}</p>'
