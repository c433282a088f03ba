"""Stability and proof of an answer in words, and the nearest scan that flips it as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from core.diagnosis import Diagnosis
from core.interval import Certificate
from core.stability import describe_stability
from demo.rendering import images, wording
from demo.rendering.html import render_figure, render_picture, render_sentence, render_strip

LOCK = (  # drawn, as not every machine has a font with one
    '<svg class="mf-lock" viewBox="0 0 12 14" aria-hidden="true"><path d="M3 6V4a3 3 0 0 1 6 0v2" '
    'fill="none" stroke="currentColor" stroke-width="1.6"/>'
    '<rect x="1" y="6" width="10" height="8" rx="1.5" fill="currentColor"/></svg> '
)
MAX_LEVELS = 4  # grey levels of 255 from which on the change is brightest
MEANING = (
    "Stable up to a size: a short search found no change of at most that size in each pixel (of a "
    "scale from 0 to 1) that flips the mixture's answer to the scan as received; where the "
    "purified scan is read, purifying does not flip it either. This is no proof."
)
PROOF_MEANING = (
    "Proven up to a size: a second, small classifier gives the same answer, and no change of at "
    "most that size in each pixel of the scan as shown (on a scale from 0 to 1) turns its answer. "
    "The proof is of that classifier, not of the mixture, and says nothing about whether the "
    "answer is right."
)


def describe(d: Diagnosis) -> str:
    """Describe the stability of an answer in a few words; empty where it cannot judge."""
    if not d.can_judge:
        return ""
    return describe_stability(d.stable, d.stable_radius, d.stability_radius, d.purifying_turns)


def describe_flip(name: str, d: Diagnosis) -> str:
    """Describe in a sentence that a reading's answer flips easily; empty where it does not."""
    if not d.can_judge or d.stable is None or d.stable:
        return ""
    says = wording.name_class(d.tumour_probability)
    reason = "without purifying the answer is another"
    if not d.purifying_turns and d.flip_distance is not None:
        levels = d.flip_distance * 255
        reason = f"another answer lies within a change of {levels:.1f} of 255 levels in each pixel"
    return f"{name.capitalize()} scan: do not rely on “{says}”: {reason}."


def render_flips(readings: Sequence[tuple[str, Diagnosis]]) -> str:
    """Render the nearest scan with another answer of each reading; empty where none was found."""
    cards = "".join(_render_flip(name, d) for name, d in readings if d.flipped is not None)
    if not cards:
        return ""
    return f'<div class="mf-card"><h3>The nearest scan with another answer</h3>{cards}</div>'


def _render_flip(name: str, d: Diagnosis) -> str:
    assert d.flipped is not None and d.flip_distance is not None
    other = wording.CLASSES[1 - int(d.tumour_probability_unpurified >= 0.5)]
    pictures = render_picture(d.scan, f"{name} scan", "as received")
    pictures += render_picture(d.flipped, f"reads “{other}”", "changed by the search")
    pictures += render_figure(
        images.encode_change(d.scan, d.flipped, MAX_LEVELS),
        "the change alone",
        f"brightest from {MAX_LEVELS} levels on",
    )
    sentence = (
        f"The mixture reads the {name} scan as “{other}” if each pixel changes by at most "
        f"{d.flip_distance * 255:.1f} of 255 levels, in the pattern on the right. A short "
        "search found this pattern; a smaller one may exist."
    )
    return render_strip(pictures) + render_sentence(sentence)


def describe_proof(d: Diagnosis, certificate: Certificate | None) -> str:
    """Describe what is proven of a reading's answer; empty where nothing can be said."""
    if certificate is None or not d.can_judge:
        return ""
    says = wording.CLASSES[certificate.label]
    if certificate.label != int(d.is_tumour):
        return f"not proven: the second classifier says “{says}”"
    least = math.floor(certificate.eps * 1e4) / 1e4  # a proof is not rounded up
    return f"proven up to {least:.4f}" if least else "not proven"


def render_proof(d: Diagnosis, certificate: Certificate | None) -> str:
    """Render it in small print, with a lock where the answer is proven."""
    words = describe_proof(d, certificate)
    if not words:
        return ""
    lock = LOCK if words.startswith("proven") else ""
    return f'<small class="mf-proof">{lock}{escape(words)}</small>'
