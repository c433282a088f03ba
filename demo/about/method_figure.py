"""Figure of the method: the paper's figure 2(b), redrawn with the changes made here."""

from __future__ import annotations

from demo.about import svg

TOP, BOX_HEIGHT = 52, 102  # of the row of boxes, in SVG units
MIDDLE = TOP + BOX_HEIGHT / 2
# left edge, width, title, lines
BOXES = (
    (10, 100, "Scan", "one slice,", "224 x 224,", "grey"),
    (150, 180, "Detector", "an autoencoder", "predicts each patch;", "error → score"),
    (370, 150, "Depth t*", "score ≤ τ: a little", "score > τ: more"),
    (560, 160, "Purifier", "noise up to t*,", "then a diffusion", "model removes it"),
    (880, 110, "Output", "probability", "of a tumour,", "calibrated"),
)
EXPERTS = (("Expert 1", "fine"), ("Expert 2", "middle"), ("Expert 3", "coarse"))


def build_method_figure() -> svg.Figure:
    """Return the way of one scan through the defence."""
    boxes = "".join(
        svg.draw_box(x, TOP, width, BOX_HEIGHT, title, *lines) for x, width, title, *lines in BOXES
    )
    arrows = "".join(
        svg.draw_arrow((x, MIDDLE), (to - 2, MIDDLE))
        for x, to in ((110, 150), (330, 370), (520, 560))
    )
    for i, (name, scale) in enumerate(EXPERTS):
        y = 6 + 68 * i
        boxes += svg.draw_box(755, y, 90, 58, name, scale, kind="mf-shared")
        arrows += svg.draw_arrow((720, MIDDLE), (753, y + 29))
        arrows += svg.draw_arrow((845, y + 29), (878, MIDDLE + 26 * (i - 1)))
    boxes += svg.draw_box(755, 218, 235, 58, "Attention", "weight of each vote", kind="mf-home")
    arrows += svg.draw_arrow((935, 218), (935, TOP + BOX_HEIGHT + 2))
    arrows += svg.draw_arrow((640, TOP + BOX_HEIGHT), (640, 247), (753, 247))
    labels = (
        svg.draw_text(650, 236, "purified scan", "mf-left")
        + svg.draw_key(10, 218, "mf-shared", "shared in a federation")
        + svg.draw_key(10, 246, "mf-home", "personal: never leaves the hospital")
    )
    panel = svg.Panel(
        "defence",
        "A scan passes the detector, the purifier and three experts.",
        "The scan goes to the detector, whose autoencoder predicts each patch and whose score is "
        "compared with the threshold tau. The score sets the depth t star: a little for every "
        "scan, more for a suspected one. The purifier adds noise up to t star and removes it. "
        "Three experts look at the purified scan at three resolutions, and the attention weights "
        "their votes into the model output. In a federation the experts are shared; the attention "
        "stays at the hospital.",
        1000,
        282,
        boxes + arrows + labels,
    )
    return svg.Figure(
        "method",
        "One scan is checked, purified and read by three experts, all at the hospital.",
        "Redrawn from the paper's figure 2(b). Here every scan is purified a little; in the paper "
        "an unsuspected scan skips the purifier.",
        (panel,),
    )
