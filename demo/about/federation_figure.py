"""Figure of the federation and of the attack on it: the paper's figure 1, redrawn."""

from __future__ import annotations

from demo.about import svg

WIDTH, HEIGHT = 440, 400
HOSPITALS = ("Hospital 1", "Hospital 2", "Hospital 10")


def build_federation_figure() -> svg.Figure:
    """Return training by ten hospitals, then an attack at one of them."""
    training = svg.Panel(
        "training",
        "Hospitals train together, and no scan leaves its hospital.",
        "Ten hospitals keep their scans. Each trains the networks on its own scans and sends only "
        "the networks' weights to the server, which returns the mean of all hospitals.",
        WIDTH,
        HEIGHT,
        _draw_training(),
    )
    attack = svg.Panel(
        "attack",
        "An invisible change to a scan flips the answer unless the defence is on.",
        "At one hospital an attacker changes a scan of a tumour so little that it looks the same. "
        "Without defence the answer flips from tumour to no tumour. Read by three experts that "
        "were trained on attacks it stays tumour.",
        WIDTH,
        HEIGHT,
        _draw_attack(),
    )
    return svg.Figure(
        "federation",
        "Hospitals train one system together without sharing scans; when it is used, an attacker "
        "changes a scan. The defence is meant to keep the answer right and does not always: see "
        "Results and Limits.",
        "Redrawn from the paper's figure 1, which shows training alone. Here ten simulated "
        "hospitals train every network, not the classifier alone, and the attack is added.",
        (training, attack),
    )


def _draw_training() -> str:
    content = svg.draw_text(6, 20, "1. Training: no scan travels", "mf-heading")
    content += svg.draw_box(
        6, 38, 428, 62, "Server", "takes the mean of all hospitals' weights", kind="mf-shared"
    )
    for i, name in enumerate(HOSPITALS):
        x = 6 + 148 * i
        middle = x + 66
        content += svg.draw_rectangle(x, 192, 132, 194)
        content += svg.draw_text(middle, 216, name, "mf-title")
        content += svg.draw_rectangle(x + 10, 228, 112, 32, "mf-shared")
        content += svg.draw_text(middle, 249, "networks")
        content += svg.draw_rectangle(x + 10, 272, 112, 104, "mf-home")
        content += svg.draw_scan(x + 17, 282, 46, tumour=False) + svg.draw_scan(x + 69, 282, 46)
        content += svg.draw_text(middle, 348, "scans") + svg.draw_text(middle, 367, "stay here")
        content += svg.draw_arrow((middle - 12, 192), (middle - 12, 102), kind="mf-shared")
        content += svg.draw_arrow((middle + 12, 100), (middle + 12, 190), kind="mf-shared")
    for x, lines in ((146, ("weights up,", "mean down")), (294, ("never", "a scan"))):
        content += "".join(
            svg.draw_text(x, 142 + svg.LINE_HEIGHT * i, line) for i, line in enumerate(lines)
        )
    return content


def _draw_attack() -> str:
    content = svg.draw_text(6, 20, "2. Use: an attack at one hospital", "mf-heading")
    content += svg.draw_text(57, 46, "scan") + svg.draw_scan(12, 54, 90)
    content += svg.draw_text(57, 163, "answer:") + svg.draw_text(57, 184, "“tumour”", "mf-title")
    content += svg.draw_box(
        140, 58, 160, 84, "Attacker", "changes each pixel", "too little to see", kind="mf-wrong"
    )
    content += svg.draw_arrow((104, 99), (138, 99), kind="mf-wrong")
    content += svg.draw_arrow((300, 99), (336, 99), kind="mf-wrong")
    content += svg.draw_text(383, 46, "attacked scan") + svg.draw_scan(338, 54, 90)
    content += svg.draw_text(312, 166, "looks the same")
    for x, kind, (title, *lines), answer in (
        (
            6,
            "mf-wrong",
            ("Without defence", "a plain classifier", "reads it as it is"),
            ("“no tumour”", "the answer has flipped"),
        ),
        (
            230,
            "mf-right",
            ("With defence", "three experts,", "trained on attacks"),
            ("“tumour”", "the answer stays right"),
        ),
    ):
        middle = x + 102
        content += svg.draw_arrow((383, 146), (383, 190), (middle, 190), (middle, 214))
        content += svg.draw_box(x, 216, 204, 80, title, *lines)
        content += svg.draw_arrow((middle, 296), (middle, 328), kind=kind)
        content += svg.draw_box(x, 330, 204, 62, *answer, kind=kind)
    return content
