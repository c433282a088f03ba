"""Building blocks of the page's HTML; every text is escaped."""

from __future__ import annotations

import base64
from html import escape

from torch import Tensor

from demo.rendering import images, wording


def strip(figures_: str) -> str:
    """Renders figures side by side."""
    return f'<div class="mf-strip">{figures_}</div>'


def say(words: str) -> str:
    """Renders a sentence; empty without words."""
    return f'<p class="mf-say">{escape(words)}</p>' if words else ""


def picture(scan: Tensor, name: str, note: str, over: str = "") -> str:
    """Renders a scan (1, H, W) with its name, a smaller note and optional HTML over it."""
    return figure(images.scan_url(scan), name, note, over)


def figure(url: str, name: str, note: str, over: str = "") -> str:
    """Renders a picture, given as a data URL, with its name and a smaller note."""
    return (
        f'<figure><div class="mf-pic"><img src="{url}" alt="{escape(f"{name} {note}".strip())}">'
        f"{over}</div><figcaption>{escape(name)}<small>{escape(note)}</small></figcaption></figure>"
    )


def link(name: str, kind: str, data: bytes, words: str) -> str:
    """Renders a link that holds its file as a data URL."""
    url = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<a download="{escape(name)}" href="{url}">{escape(words)}</a>'


def meter(share: float, name: str = "", *, kind: str = "", tag: str = "div") -> str:
    """Renders a bar from 0 to 1.

    Args:
        share: the value; clipped to [0, 1].
        name: what it measures, for screen readers; hidden from them where the value is beside it.
        kind: a further CSS class.
        tag: the element.
    """
    aria = 'aria-hidden="true"'
    if name:
        aria = f'role="img" aria-label="{escape(name)} {wording.percent(share)}"'
    return (
        f'<{tag} class="{f"mf-meter {kind}".strip()}" {aria}>'
        f'<i style="width:{min(max(share, 0), 1) * 100:.1f}%"></i></{tag}>'
    )


def output(name: str, tumour: float) -> str:
    """Renders one output: its name, a bar, the class and its probability."""
    says, confidence = wording.label(tumour), wording.confidence(tumour)
    return (
        f'<p class="mf-output" data-says="{says}"><span>{escape(name)}</span>'
        f"{meter(tumour, kind='mf-half', tag='span')}<b>{says} {escape(confidence)}</b></p>"
    )
