"""Building blocks of the page's HTML; every text is escaped."""

from __future__ import annotations

import base64
from html import escape

from torch import Tensor

from demo.rendering import images, wording


def render_strip(figures: str) -> str:
    """Render figures side by side."""
    return f'<div class="mf-strip">{figures}</div>'


def render_sentence(words: str) -> str:
    """Render a sentence; empty without words."""
    return f'<p class="mf-say">{escape(words)}</p>' if words else ""


def render_placeholder(words: str) -> str:
    """Render what will be in a place that is still empty."""
    return f'<p class="mf-placeholder">{escape(words)}</p>'


def render_picture(scan: Tensor, name: str, note: str, over: str = "") -> str:
    """Render a scan (1, H, W) with its name, a smaller note and optional HTML over it."""
    return render_figure(images.encode_scan(scan), name, note, over)


def render_figure(url: str, name: str, note: str, over: str = "") -> str:
    """Render a picture, given as a data URL, with its name and a smaller note."""
    return (
        f'<figure><div class="mf-pic"><img src="{url}" alt="{escape(f"{name} {note}".strip())}">'
        f"{over}</div><figcaption>{escape(name)}<small>{escape(note)}</small></figcaption></figure>"
    )


def render_link(name: str, kind: str, data: bytes, words: str) -> str:
    """Render a link that holds its file as a data URL."""
    url = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<a download="{escape(name)}" href="{url}">{escape(words)}</a>'


def render_meter(share: float, name: str = "", *, kind: str = "", tag: str = "div") -> str:
    """Render a bar from 0 to 1.

    Args:
        share: the value; clipped to [0, 1].
        name: for screen readers; without a name the bar is hidden from them.
        kind: a further CSS class.
        tag: the element.
    """
    aria = 'aria-hidden="true"'
    if name:
        aria = f'role="img" aria-label="{escape(name)} {wording.format_percent(share)}"'
    return (
        f'<{tag} class="{f"mf-meter {kind}".strip()}" {aria}>'
        f'<i style="width:{min(max(share, 0), 1) * 100:.1f}%"></i></{tag}>'
    )


def render_output(name: str, tumour: float) -> str:
    """Render one output: its name, a bar, the class and its probability."""
    says, confidence = wording.name_class(tumour), wording.format_confidence(tumour)
    return (
        f'<p class="mf-output" data-says="{says}"><span>{escape(name)}</span>'
        f"{render_meter(tumour, kind='mf-half', tag='span')}<b>{says} {escape(confidence)}</b></p>"
    )
