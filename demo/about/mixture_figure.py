"""Figure of the federation's parts: the paper's figure 2(a), redrawn with what is sent here."""

from __future__ import annotations

from demo.about import svg

WIDTH, HEIGHT = 440, 460
EXPERTS = (("Expert 1", "fine"), ("Expert 2", "middle"), ("Expert 3", "coarse"))
SENT = (
    "experts, plain classifier,",
    "autoencoder, diffusion,",
    "residual network,",
    "out-of-distribution head",
)
KEPT = (
    "scans and labels,",
    "attention network,",
    "batch-norm statistics,",
    "threshold, calibration",
)
# each hospital's attention: heights of three bars, drawn to show that they differ
ATTENTIONS = (
    ("Hospital 1", (24, 12, 16)),
    ("Hospital 2", (10, 22, 18)),
    ("Hospital 10", (14, 18, 26)),
)


def build_mixture_figure() -> svg.Figure:
    """Return what the server averages, and the mixture inside each hospital."""
    server = svg.Panel(
        "server",
        "The server averages the experts, and each hospital keeps its own attention.",
        "Each hospital has three experts and an attention network. It sends the experts to the "
        "server and receives their mean, weighted by number of scans, with server momentum "
        "(FedAvgM). The attention never leaves the hospital.",
        WIDTH,
        HEIGHT,
        _draw_server(),
    )
    client = svg.Panel(
        "client",
        "Inside each hospital the attention weights the votes of three experts.",
        "Three experts see the scan at three resolutions. The attention turns their features into "
        "a weight for each vote, and the weighted mean is the probability of a tumour. Sent to "
        "the server: experts, plain classifier, autoencoder, diffusion model, the detector's "
        "residual network and the out-of-distribution head. Kept: scans, labels, attention, "
        "batch-norm statistics, threshold and calibration.",
        WIDTH,
        HEIGHT,
        _draw_client(),
    )
    return svg.Figure(
        "mixture",
        "Hospitals share their experts through the server; each keeps its own attention, which "
        "weights the experts' votes.",
        "Redrawn from the paper's figure 2(a), where the server's mean is FedAvg and the "
        "classifier alone is federated. Here the server adds momentum (FedAvgM), every network "
        "is federated, and batch-norm statistics stay at home too.",
        (server, client),
    )


def _draw_server() -> str:
    content = svg.draw_text(6, 20, "Between hospitals", "mf-heading")
    content += svg.draw_box(
        6,
        38,
        428,
        84,
        "Server",
        "mean of the experts, weighted by number of scans,",
        "then server momentum (FedAvgM)",
        kind="mf-shared",
    )
    for i, (name, heights) in enumerate(ATTENTIONS):
        x = 6 + 148 * i
        middle = x + 66
        content += svg.draw_rectangle(x, 208, 132, 200) + svg.draw_text(
            middle, 232, name, "mf-title"
        )
        content += svg.draw_rectangle(x + 10, 244, 112, 54, "mf-shared")
        content += svg.draw_text(middle, 265, "three") + svg.draw_text(middle, 284, "experts")
        content += svg.draw_rectangle(x + 10, 312, 112, 84, "mf-home")
        content += svg.draw_text(middle, 334, "attention")
        content += "".join(
            f'<rect class="mf-vote" x="{middle - 27 + 20 * n:g}" y="{384 - height}" width="14" '
            f'height="{height}"/>'
            for n, height in enumerate(heights)
        )
        content += svg.draw_arrow((middle - 12, 208), (middle - 12, 124), kind="mf-shared")
        content += svg.draw_arrow((middle + 12, 122), (middle + 12, 206), kind="mf-shared")
    content += svg.draw_text(146, 160, "experts up,") + svg.draw_text(146, 179, "mean down")
    content += svg.draw_text(294, 160, "attention") + svg.draw_text(294, 179, "stays home")
    content += svg.draw_key(6, 430, "mf-shared", "sent and averaged")
    return content + svg.draw_key(228, 430, "mf-home", "stays at the hospital")


def _draw_client() -> str:
    content = svg.draw_text(6, 20, "Inside each hospital", "mf-heading")
    content += svg.draw_text(46, 84, "scan")
    content += svg.draw_scan(6, 94, 80)
    for i, (name, scale) in enumerate(EXPERTS):
        y = 38 + 66 * i
        content += svg.draw_box(118, y, 110, 58, name, scale, kind="mf-shared")
        content += svg.draw_arrow((88, 133), (116, y + 29))
        content += svg.draw_arrow((228, y + 29), (282, 107 + 26 * i))
    content += svg.draw_box(284, 88, 150, 84, "Weighted mean", "probability", "of a tumour")
    content += svg.draw_box(
        118, 264, 316, 60, "Attention", "gives each vote its weight", kind="mf-home"
    )
    content += svg.draw_arrow((173, 228), (173, 262)) + svg.draw_arrow((359, 264), (359, 174))
    content += svg.draw_text(183, 250, "features of all three", "mf-left")
    content += svg.draw_box(6, 340, 206, 116, "Sent and averaged", *SENT, kind="mf-shared")
    return content + svg.draw_box(228, 340, 206, 116, "Stays at home", *KEPT, kind="mf-home")
