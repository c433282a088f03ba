"""Figure of the method: the paper's figure 2(b), redrawn with the changes made here."""

from __future__ import annotations

from html import escape

WIDTH, HEIGHT = 1000, 310
TOP, BOX_HEIGHT = 70, 116  # of the row of boxes, in SVG units
DESCRIPTION = (
    "The scan goes to the detector, whose autoencoder predicts each patch and whose score is "
    "compared with the threshold tau. The score sets the depth t star: a little for every scan, "
    "more for a suspected one. The purifier adds noise up to t star and removes it. Three experts "
    "look at the purified scan at three resolutions, and the attention weights their votes into "
    "the model output. In a federation the experts are shared; the attention stays at the "
    "hospital."
)
# left edge, width, title, lines
BOXES = (
    (10, 100, "Scan", ("one slice,", "224 x 224,", "grey")),
    (150, 180, "Detector", ("an autoencoder", "predicts each patch;", "error → score")),
    (370, 150, "Depth t*", ("score ≤ τ: a little", "score > τ: more")),
    (560, 160, "Purifier", ("noise up to t*,", "then a diffusion", "model removes it")),
    (880, 110, "Output", ("probability", "of a tumour,", "calibrated")),
)  # fmt: skip
EXPERTS = (("Expert 1", "fine"), ("Expert 2", "middle"), ("Expert 3", "coarse"))


def draw_method_figure() -> str:
    """Return an inline SVG whose text takes the page's colours, readable in dark and light."""
    boxes = "".join(_draw_box(*box) for box in BOXES)
    arrows = "".join(
        _draw_arrow(x, TOP + BOX_HEIGHT / 2, to, TOP + BOX_HEIGHT / 2)
        for x, to in ((110, 150), (330, 370), (520, 560))
    )
    experts = ""
    for i, (name, scale) in enumerate(EXPERTS):
        y = 30 + 68 * i
        experts += (
            f'<rect class="mf-box mf-shared" x="755" y="{y}" width="90" height="54" rx="7"/>'
            f'<text class="mf-title" x="800" y="{y + 23}">{name}</text>'
            f'<text x="800" y="{y + 42}">{scale}</text>'
        )
        middle = y + 27
        experts += _draw_arrow(720, TOP + BOX_HEIGHT / 2, 755, middle) + _draw_arrow(
            845, middle, 880, TOP + BOX_HEIGHT / 2
        )
    attention = (
        '<rect class="mf-box mf-home" x="755" y="240" width="235" height="54" rx="7"/>'
        '<text class="mf-title" x="872" y="262">Attention</text>'
        '<text x="872" y="282">weight of each vote</text>'
        f"{_draw_arrow(935, 240, 935, TOP + BOX_HEIGHT)}{_draw_elbow()}"
    )
    labels = (
        '<text class="mf-left" x="650" y="256">purified scan</text>'
        '<rect class="mf-box mf-shared" x="10" y="240" width="22" height="16" rx="3"/>'
        '<text class="mf-left" x="40" y="253">shared in a federation</text>'
        '<rect class="mf-box mf-home" x="10" y="268" width="22" height="16" rx="3"/>'
        '<text class="mf-left" x="40" y="281">personal: never leaves the hospital</text>'
        '<text class="mf-left" x="10" y="26">'
        "By default every scan is purified before it is classified.</text>"
    )
    head = (
        '<defs><marker id="mf-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="mf-tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    return (
        f'<svg class="mf-method" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(DESCRIPTION)}">{head}{boxes}{arrows}{experts}{attention}{labels}</svg>'
    )


def _draw_box(x: int, width: int, title: str, lines: tuple[str, ...]) -> str:
    middle = x + width / 2
    text = "".join(
        f'<text x="{middle:g}" y="{TOP + 46 + 19 * i}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<rect class="mf-box" x="{x}" y="{TOP}" width="{width}" height="{BOX_HEIGHT}" rx="8"/>'
        f'<text class="mf-title" x="{middle:g}" y="{TOP + 24}">{escape(title)}</text>{text}'
    )


def _draw_arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="mf-flow" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" '
        'marker-end="url(#mf-tip)"/>'
    )


def _draw_elbow() -> str:
    """Draw the arrow from the purifier down and across to the attention."""
    return (
        f'<polyline class="mf-flow" points="640,{TOP + BOX_HEIGHT} 640,267 755,267" '
        'marker-end="url(#mf-tip)"/>'
    )
