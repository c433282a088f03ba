"""Figure of the method: the paper's figure 2(b), redrawn with the changes made here."""

from __future__ import annotations

from demo.about import svg

ROW, BELOW, BOX_HEIGHT = 74, 306, 102  # tops of the two rows of boxes and their height, SVG units
MIDDLE, LOWER = ROW + BOX_HEIGHT / 2, BELOW + BOX_HEIGHT / 2
# left edge, top, width, title, lines
BOXES = (
    (10, ROW, 110, "Scan", "one slice,", "224 x 224,", "grey"),
    (430, ROW, 130, "Answer", "probability", "of a tumour,", "calibrated"),
    (630, ROW, 170, "Stability", "does a change of", "at most d in each", "pixel flip it?"),
    (870, ROW, 120, "Shown", "stable, or", "not to rely on"),
    (180, BELOW, 190, "Detector", "an autoencoder", "predicts each patch;", "error → score"),
    (430, BELOW, 130, "Shown", "alarm, if the", "score is above τ"),
    (630, BELOW, 170, "Purifier", "noise is added, then", "a diffusion model", "removes it"),
    (870, BELOW, 120, "Shown", "purified scan,", "to look at"),
)
EXPERTS = (("Expert 1", "fine"), ("Expert 2", "middle"), ("Expert 3", "coarse"))


def build_method_figure() -> svg.Figure:
    """Return the way of one scan through the defence."""
    boxes = "".join(
        svg.draw_box(x, y, width, BOX_HEIGHT, title, *lines) for x, y, width, title, *lines in BOXES
    )
    arrows = "".join(
        svg.draw_arrow((x, y), (to - 2, y))
        for x, to, y in (
            (560, 630, MIDDLE), (800, 870, MIDDLE),
            (370, 430, LOWER), (800, 870, LOWER),
        )
    )  # fmt: skip
    for i, (name, scale) in enumerate(EXPERTS):
        y = 28 + 68 * i
        boxes += svg.draw_box(230, y, 100, 58, name, scale, kind="mf-shared")
        arrows += svg.draw_arrow((120, MIDDLE), (228, y + 29))
        arrows += svg.draw_arrow((330, y + 29), (428, MIDDLE + 26 * (i - 1)))
    boxes += svg.draw_box(230, 232, 330, 50, "Attention: weight of each vote", kind="mf-home")
    arrows += svg.draw_arrow((495, 232), (495, ROW + BOX_HEIGHT + 2))
    arrows += svg.draw_arrow((85, ROW + BOX_HEIGHT), (85, 257), (228, 257))
    arrows += svg.draw_arrow((45, ROW + BOX_HEIGHT), (45, LOWER), (178, LOWER))
    arrows += svg.draw_arrow((45, LOWER), (45, 428), (715, 428), (715, BELOW + BOX_HEIGHT + 2))
    labels = svg.draw_key(630, 232, "mf-shared", "shared in a federation") + svg.draw_key(
        630, 260, "mf-home", "personal: never leaves the hospital"
    )
    panel = svg.Panel(
        "defence",
        "Three experts read the scan; a detector and a purifier show what is unusual in it.",
        "Above: three experts look at the scan at three resolutions, and the attention weights "
        "their votes into the answer. A search tells whether a change of at most d in each pixel "
        "flips it: the answer is then shown as one not to rely on. Below: the scan goes to the "
        "detector, whose autoencoder predicts each patch and whose score raises an alarm above the "
        "threshold tau, and to the purifier, which adds noise and removes it: the purified scan is "
        "shown to be looked at. In a federation the experts are shared; the attention stays at the "
        "hospital.",
        1000,
        440,
        boxes + arrows + labels,
    )
    return svg.Figure(
        "method",
        "One scan is read by three experts and checked by a search, a detector and a purifier, all "
        "at the hospital.",
        "Redrawn from the paper's figure 2(b), where the experts read flagged scans purified. Here "
        "they read the scan itself, and there is a search.",
        (panel,),
    )
