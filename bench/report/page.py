"""`results/report.html`: every plot from the result files, in one file that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from bench.markdown import Renderer, Results
from bench.report import figures, part_plots
from bench.report.figure_groups import absent
from bench.report.page_style import STYLE

TITLE = "MedFedPure: measured"
INTRO = """<p>MedFedPure reads brain-MRI slices and defends the reading against small, invisible
changes made to mislead it. This page draws what was measured; every point comes from a file under
<code>results/</code>, named below each group together with date, commit and machine.</p>
<p>Robustness is measured against the attacks listed, not proven, and an attacker with more time may
do better. Intervals say what other scans of these collections might have given, not what other
trainings would; the collections are full of near-duplicates, so that intervals by scan are too
narrow. Figures of different files may be of different scans. Research and teaching only: not for
clinical use.</p>"""


class Section(NamedTuple):
    """A heading, a sentence on how to read it, and what draws it from the results."""

    name: str
    title: str
    reading: str
    render: Renderer


SECTIONS = (
    Section("eps", "Accuracy against eps",
            "How accuracy falls as the attack may change each pixel by more.",
            figures.eps_curve),
    Section("worst-case", "Worst case over the ladder of attacks",
            "Scans that no attack so far has turned, clean first, attacks added downwards.",
            figures.worst_case),
    Section("accuracy", "Accuracy clean and under the paper's attack",
            "A0 attacks each system's classifier alone; it knows nothing of detector and purifier.",
            part_plots.accuracy),
    Section("roc", "Detector: ROC",
            "Attacked scans found, by clean scans that would raise an alarm.",
            part_plots.detector),
    Section("ladder-roc", "Detector against the ladder: ROC",
            "The same for each attack of the ladder on the whole defence; some know the detector.",
            figures.detector_on_ladder),
    Section("scores", "Detector: scores of clean and attacked scans",
            "What the threshold τ cuts apart.",
            part_plots.scores),
    Section("reliability", "Reliability of the probabilities",
            "Whether a probability of 80 % means eight tumours in ten scans.",
            part_plots.calibration),
)  # fmt: skip


def page(results: Results) -> str:
    """The whole page as HTML; the same results give the same text."""
    contents = "\n".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in SECTIONS)
    body = "\n".join(_section(s, results) for s in SECTIONS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(TITLE)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(TITLE)}</h1>
{INTRO}
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
</header>
<main>
{body}
</main>
<footer><p class="note">Written by <code>python -m bench report</code>; the same figures stand as
tables in <code>README.md</code>.</p></footer>
</body>
</html>
"""


def _section(section: Section, results: Results) -> str:
    try:
        drawn = section.render(results)
    except KeyError as error:
        if not str(error.args[0]).endswith(".json"):  # a broken file is not a missing one
            raise
        drawn = absent(error.args[0])
    return (
        f'<section id="{section.name}">\n<h2>{escape(section.title)}</h2>\n'
        f"<p>{escape(section.reading)}</p>\n{drawn}\n</section>"
    )
