"""The README's table: four systems, clean, under PGD-7 and in the worst case of the attacks run."""

from __future__ import annotations

from typing import NamedTuple

from bench.markdown import Result, Results, percent, span, table

READINGS, SUITE = "robustness-patients", "ladder-patients"
SYSTEMS = {
    "undefended": "plain classifier",
    "plain-purified": "plain classifier + detector and purifier",
    "trained-mixture": "adversarially trained mixture (default)",
    "defence": "full pipeline: detector, purifier, mixture",
}


class Scores(NamedTuple):
    """A system's accuracy blocks; `worst` is None where the attack suite was not run."""

    name: str
    clean: Result
    pgd: Result
    worst: Result | None


def read_scores(results: Results) -> list[Scores]:
    """Returns the four systems' scores. Raises KeyError, naming the file, where it is missing."""
    if READINGS not in results:
        raise KeyError(f"{READINGS}.json")
    clean, pgd = (results[READINGS]["rows"][row]["systems"] for row in ("clean", "A0"))
    worst = results[SUITE]["standings"] if SUITE in results else {}
    return [
        Scores(name, clean[key], pgd[key], worst[key]["worst"] if key in worst else None)
        for key, name in SYSTEMS.items()
    ]


def render_headline(results: Results) -> str:
    """Renders accuracy with 95 % intervals by patient or group; equal scans in a column."""
    scores = read_scores(results)
    n = scores[0].clean["n"]
    worst_n = next((s.worst["n"] for s in scores if s.worst), None)
    head = [
        "system",
        f"clean, n = {n}",
        f"PGD-7 on the classifier, n = {n}",
        "worst case of the attacks run" + (f", n = {worst_n}" if worst_n else ""),
    ]
    lines = [[s.name, *(_cell(block) for block in (s.clean, s.pgd, s.worst))] for s in scores]
    note = (
        "Accuracy in %; in brackets the 95 % interval, resampling patients, or groups of "
        "near-duplicates where no patient is known; eps = 0.015 (L∞). In a column every system "
        "reads the same scans."
    )
    if worst_n:
        note += (
            " Worst case: a scan counts as correct if none of the suite's attacks that were run on "
            f"the system succeeds; {worst_n} scans."
        )
    return f"{table(head, lines)}\n\n{note}"


def _cell(block: Result | None) -> str:
    if block is None:
        return "not measured"
    return f"{percent(block['accuracy'])} [{span(block['interval_by_group'])}]"
