"""Tables and figures of the tab About, read from results/*.json and the weights' manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from core.checkpoint import WEIGHTS, WeightsError, read_manifest

RESULTS = Path(__file__).parents[2] / "results"
DASH = "\N{EN DASH}"
PROTOCOLS = {
    "paper": "Br35H, random split as published, with near-duplicates of test scans in the training "
    "data; other weights, of an earlier pooled training, not shipped",
    "patients": "four sources, split by patient; shipped weights, read as hospital 7",
}
ROWS = {"clean": "clean", "A0": "PGD-7, eps .015", "A0-8bit": "PGD-7, quantized to 8 bits"}
SYSTEMS = {"undefended": "without defence", "trained-mixture": "with defence"}
SUITE_SYSTEMS = {
    "undefended": "plain classifier (without defence)",
    "trained-mixture": "mixture trained on attacks (with defence)",
    "defence": "mixture behind detector and purifier, as in the paper",
}
SUITE_ATTACKS = {
    "A0": "PGD-7",
    "A1": "PGD with restarts",
    "A2": "transfer APGD",
    "A3": "APGD-CE",
    "A4": "APGD-margin",
    "A5": "BPDA",
    "A6": "noise-gradient",
    "A9": "detector-aware",
    "A10": "Square",
    "A11": "low-frequency",
}
DETECTOR_AWARE = {"A9 (2)": "without gradient signs", "A9 (1)": "with gradient signs"}
LEFT_OUT = {"br35h": "Br35H", "brain-tumor-mri": "Brain Tumor MRI", "tcga-lgg": "TCGA-LGG"}
ANSWERING = ("scopes", "all", "systems", "trained-mixture")
UNKNOWN_WORST = "How often has not been measured yet on the weights that ship."
UNKNOWN_ELSEWHERE = (
    "How well it reads a source that its training left out has not been measured yet"
)


def render_robustness(folder: Path = RESULTS) -> str:
    """Render the accuracy without and with defence, clean and under PGD-7, for each split."""
    lines = []
    for protocol, meaning in PROTOCOLS.items():
        result = _read(folder / f"robustness-{protocol}.json")
        for i, (row, name) in enumerate(ROWS.items()):
            cells = [format_accuracy(_get(result, "rows", row, "systems", s)) for s in SYSTEMS]
            flagged = format_percent(_get(result, "rows", row, "systems", "defence", "flagged"))
            first = f"<b>{protocol}</b><small>{escape(meaning)}</small>" if i == 0 else ""
            lines.append([first, name, *cells, flagged])
    head = ["split", "test scans", *SYSTEMS.values(), "flagged"]
    return render_table(head, lines, "Accuracy on test scans, with 95 % intervals")


def render_attack_suite(folder: Path = RESULTS) -> str:
    """Render the worst case over the attack suite, and the errors that raise no alarm."""
    standings = _get(_read(folder / "ladder-patients.json"), "standings")
    lines = [
        [name, *(format_accuracy(_get(standings, system, key)) for key in ("clean", "worst"))]
        for system, name in SUITE_SYSTEMS.items()
    ]
    head = ["system", "clean", "worst case of the attack suite"]
    caption = "Attacks that know the whole system, eps .015"
    if not standings:
        return f"{render_table(head, lines, caption)}<p>{UNKNOWN_WORST}</p>"
    areas = [
        f"{format_number(area)} {name}"
        for key, name in DETECTOR_AWARE.items()
        if (area := _get(standings, "defence", "detection", key, "auroc")) is not None
    ]
    known = (
        f" AUROC of the detector under detector-aware attacks: {', '.join(areas)} (.5 is chance)."
        if areas
        else ""
    )
    return (
        f"{render_table(head, lines, caption)}"
        "<p>In the worst case a scan counts as right only if none of these attacks gets it "
        f"misread: {_name_attacks(standings, 'rows')}.{_describe_missing(standings)} "
        f"{_describe_undetected(standings)}{known}</p>"
    )


def _name_attacks(standings: Any, key: str) -> str:
    """Name the attacks on the full pipeline that a list of the result file holds."""
    keys = _get(standings, "defence", key) or ()
    return ", ".join(name for row, name in SUITE_ATTACKS.items() if row in keys)


def _describe_missing(standings: Any) -> str:
    missing = _name_attacks(standings, "to_come")
    return f" Not run yet, and able to lower it: {missing}." if missing else ""


def render_main_limits(folder: Path = RESULTS) -> str:
    """Render the most important limits, the worst first, with the figures that show them."""
    limits = (
        ("Do not rely on the output for scans of another hospital or scanner.", _limit_elsewhere),
        ("The answer does not rest on the tumour alone.", _limit_reasons),
        ("An attacker who knows the detector can evade it.", _limit_attacks),
        ("The tumour map can point beside the tumour.", _limit_map),
    )
    items = (f"<li><b>{title}</b> {describe(folder)}</li>" for title, describe in limits)
    return f"<ol>{''.join(items)}</ol>"


def _limit_elsewhere(folder: Path) -> str:
    left_out = {name: _read_left_out(folder, source) for source, name in LEFT_OUT.items()}
    measured = [f"{format_percent(v)} ({name})" for name, v in left_out.items() if v is not None]
    missing = [name for name, v in left_out.items() if v is None]
    told = UNKNOWN_ELSEWHERE
    if measured:
        told = (
            "Balanced accuracy of a mixture on a source that its training left out: "
            f"{', '.join(measured)}"
        )
        told += f"; not measured: {', '.join(missing)}" if missing else ""
    system = _get(_read(folder / "unseen-patients.json"), "rows", "clean", *ANSWERING)
    known = format_percent(_get(system, "mean_balanced", "value"))
    right = _get(system, "sources", "tcga-lgg", "specificity", "value")
    false_alarms = format_percent(None if right is None else 1 - right)
    return (
        f"{told}. On new patients of the hospitals that trained it, the mixture has {known}; "
        f"of TCGA-LGG's slices without a tumour it calls {false_alarms} tumours. “Cannot judge” "
        "recognises pictures that are not brain MRI, not brain MRI of another hospital."
    )


def _limit_reasons(folder: Path) -> str:
    rows = _get(_read(folder / "explanations-patients.json"), "rows")
    removed = _get(rows, "deletion: clean", "mask")
    k, n = (_format_count(_get(removed, "sources", "brain-tumor-mri", key)) for key in ("k", "n"))
    return (
        f"When the tumour is removed from a scan, {format_percent(_get(removed, 'mean', 'value'))} "
        f"of the answers turn to “no tumour”, in the Brain Tumor MRI Dataset {k} of {n}: its "
        "tumours and its healthy scans come from different places, and the style of the picture "
        "tells them apart."
    )


def _limit_attacks(folder: Path) -> str:
    standings = _get(_read(folder / "ladder-patients.json"), "standings")
    if not standings:
        return UNKNOWN_WORST
    worst = [
        f"{_format_count(_get(standings, system, 'worst', 'k'))} of "
        f"{_format_count(_get(standings, system, 'worst', 'n'))}"
        for system in ("trained-mixture", "defence")
    ]
    return (
        "In the worst case over the attack suite the adversarially trained mixture alone is right "
        f"on {worst[0]} scans, the full pipeline on {worst[1]}. {_describe_undetected(standings)}"
        f"{_describe_missing(standings)}"
    )


def _limit_map(folder: Path) -> str:
    rows = _get(_read(folder / "explanations-patients.json"), "rows")
    clean, attacked = (_get(rows, row, "maps", "tumour map", "mean") for row in ("clean", "apgd"))
    inside, chance, hit, hit_attacked = (
        format_percent(_get(mean, key, "value"))
        for mean, key in (
            (clean, "energy"),
            (clean, "chance"),
            (clean, "pointing"),
            (attacked, "pointing"),
        )
    )
    return (
        f"Its highest point lies in the tumour for {hit} of the tumours, under attack for "
        f"{hit_attacked}, and {inside} of its energy lies there, where chance would put {chance}. "
        "The maps are of scans that are not purified, as on the page."
    )


def _read_left_out(folder: Path, source: str) -> Any:
    """Return the first mixture's balanced accuracy on a source that it was not trained on."""
    rows = _get(_read(folder / f"mixtures-without-{source}.json"), "rows")
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    return _get(first, "clean", "sources", source, "balanced", "value")


def _describe_undetected(standings: Any) -> str:
    attacked = _get(standings, "defence", "unnoticed", "attacked")
    undetected, misread = (_format_count(_get(attacked, key)) for key in ("unnoticed", "misread"))
    return (
        f"Of {misread} scans that any attack gets misread behind the full pipeline {undetected} "
        "raise no alarm."
    )


def render_detection(folder: Path = RESULTS) -> str:
    """Render the AUROC of both scores under attacks that ignore the detector."""
    result = _read(folder / "detection-patients.json")
    lines = []
    for target, name in (
        ("plain", "plain classifier"),
        ("trained", "adversarially trained mixture"),
    ):
        for eps in ("0.004", "0.015"):
            row = _get(result, "rows", f"{target}, eps {eps}", "scores")
            cells = [format_number(_get(row, s, "auroc")) for s in ("paper", "fused")]
            lines.append([f"PGD-7 on the {name}, eps {eps}", *cells])
    head = ["attack", "paper's score, AUROC", "fused score, AUROC"]
    return render_table(head, lines, "Detection of attacks that do not know the detector")


def render_speed(folder: Path = RESULTS) -> str:
    """Return one sentence: how long a reading takes, and on what machine."""
    result = _read(folder / "latency-patients.json")
    row, on = _get(result, "rows", "read"), _get(result, "provenance", "timed_on")
    seconds = [_get(row, key) for key in ("median_ms", "p95_ms")]
    times = [DASH if s is None else f"{s / 1e3:.2f} s" for s in seconds]
    where = escape(str(_get(on, "device_name") or DASH))
    threads = _get(on, "threads") or DASH
    return (
        f"Reading one scan takes {times[0]} (95th percentile {times[1]}) on {where}, "
        f"{threads} threads."
    )


def render_provenance(folder: Path = RESULTS) -> str:
    """Render the source of the figures: file, date of measurement, commit."""
    lines = []
    names = [f"robustness-{p}" for p in PROTOCOLS]
    names += [
        f"{name}-patients" for name in ("ladder", "detection", "latency", "explanations", "unseen")
    ]
    names += [f"mixtures-without-{source}" for source in LEFT_OUT]
    for name in names:
        facts = _get(_read(folder / f"{name}.json"), "provenance")
        date, commit = (str(_get(facts, key) or DASH)[:10] for key in ("date", "commit"))
        lines.append(
            [f"<code>results/{name}.json</code>", escape(date), f"<code>{escape(commit)}</code>"]
        )
    return render_table(["file", "measured", "commit"], lines, "Source of the figures")


def render_weights(folder: Path = WEIGHTS) -> str:
    """Render the manifest of the shipped weights."""
    try:
        files = read_manifest(folder)
    except WeightsError:
        files = {}
    lines = [
        [
            f"<code>{escape(name)}</code>",
            f"{info.bytes / 1e6:.2f} MB",
            escape(info.preset),
            escape(info.protocol),
            f"<code>{escape(info.commit[:10])}</code>",
            f"<code>{escape(info.sha256[:16])}</code>",
        ]
        for name, info in files.items()
    ]
    head = ["file", "size", "preset", "split", "commit", "sha256 (first 16)"]
    return render_table(head, lines or [[DASH] * len(head)], "The weights")


def format_accuracy(cells: Any) -> str:
    """Return '93.3 % [90.2 to 95.8] 448/480' from one system's figures, or a dash."""
    share, k, n = (_get(cells, key) for key in ("accuracy", "k", "n"))
    if share is None or k is None or n is None:
        return DASH
    interval = _get(cells, "interval_by_group") or _get(cells, "interval")
    span = "[{:.1f} to {:.1f}] ".format(*(100 * end for end in interval)) if interval else ""
    return f"<b>{share * 100:.1f} %</b> <small>{span}{k}/{n}</small>"


def format_percent(share: Any) -> str:
    """Return '93.3 %' of a share, or a dash."""
    return DASH if share is None else f"{share * 100:.1f} %"


def _format_count(count: Any) -> str:
    return DASH if count is None else str(count)


def format_number(value: Any) -> str:
    """Return three decimals, or a dash."""
    return DASH if value is None else f"{value:.3f}"


def render_table(head: Iterable[str], lines: Iterable[Iterable[str]], caption: str) -> str:
    """Render a table whose first column names its rows; cells are HTML."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ""
    for first, *rest in lines:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        name = f'<th scope="row">{first}</th>' if first else "<td></td>"
        body += f"<tr>{name}{cells}</tr>"
    return (
        f'<div class="mf-scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="mf-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _read(path: Path) -> Any:
    """Return the content of a result file, or None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _get(value: Any, *keys: str) -> Any:
    """Return the value at a path of keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
