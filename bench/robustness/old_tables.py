"""Tables of the README in Markdown, each from the result files that it needs."""

from __future__ import annotations

from bench.markdown import (
    PROTOCOLS,
    Result,
    Results,
    accuracy,
    number,
    percent,
    recall,
    results_of,
    source,
    table,
)

SYSTEM_NAMES = {
    "defence": "whole defence",
    "defence-paper-policy": "whole defence, purifying flagged scans only",
    "defence-published-gate": "the same by rank: the 18 % of all these scans of highest MAE error",
    "trained-mixture": "trained mixture alone",
    "uniform-attention": "its experts with equal weights",
    "best-expert": "its best single expert",
    "undefended": "undefended (plain classifier)",
    "plain-purified": "plain classifier behind detector and purifier",
    "plain-purified-paper-policy": "the same, purifying flagged scans only",
}


def robustness(results: Results) -> str:
    """Accuracy of every system under every attack, one table per protocol."""
    parts = []
    for protocol, result in results_of(results, "robustness", PROTOCOLS).items():
        rows = _attack_rows(result)
        systems = list(next(iter(rows.values()))["systems"])
        lines = []
        for system in systems:
            cells = [_with_classes(row["systems"].get(system)) for row in rows.values()]
            lines.append([SYSTEM_NAMES[system], *cells])
        head = ["accuracy, % [95 % by scan; by near-duplicate group]; tumour / no tumour", *rows]
        meanings = "; ".join(f"{name}: {row['meaning']}" for name, row in rows.items())
        note = f"{meanings}. {source(result)}"
        parts.append(f"**{protocol}**\n\n{table(head, lines)}\n\n{note}")
    return "\n\n".join(parts)


def figures(results: Results) -> str:
    """What stands beside accuracy: sensitivity, specificity, AUC, calibration, flagged share."""
    parts = []
    for protocol, result in results_of(results, "robustness", PROTOCOLS).items():
        lines = []
        for name, row in _attack_rows(result).items():
            for system in ("defence", "undefended"):
                block = row["systems"].get(system)
                if block:
                    lines.append([name, SYSTEM_NAMES[system], *_beside(block)])
        head = ["row", "system", "sensitivity, %", "specificity, %", "balanced, %", "AUC"]
        head += ["calibration error", "flagged, %"]
        parts.append(f"**{protocol}**\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def sources(results: Results) -> str:
    """The whole defence per source: accuracy, recall per kind of tumour, specificity."""
    result = results_of(results, "robustness", ("multi-source",))["multi-source"]
    lines = []
    for name, row in _attack_rows(result).items():
        for place, block in row["systems"].get("defence", {}).get("sources", {}).items():
            specificity = percent(block.get("specificity"))
            lines.append([place, name, accuracy(block), recall(block["recall"]), specificity])
    head = ["source", "row", "accuracy, %", "recall per kind, %", "specificity, %"]
    return f"{table(head, lines)}\n\n{source(result)}"


def mixture(results: Results) -> str:
    """Attention weights over the test scans."""
    lines = []
    for protocol, result in results_of(results, "robustness", PROTOCOLS).items():
        for name, row in _attack_rows(result).items():
            weights = row["systems"].get("defence", {}).get("attention")
            if weights:
                cells = [
                    f"{m:.2f} ± {s:.2f}"
                    for m, s in zip(weights["mean"], weights["sd"], strict=True)
                ]
                lines.append([protocol, name, ", ".join(cells)])
    return table(["protocol", "row", "weight of each expert, mean ± sd over scans"], lines)


def loso(results: Results) -> str:
    """Systems that never saw the source they are tested on, and how often they raise an alarm."""
    result = results_of(results, "loso", ("",))[""]
    lines = []
    for name, row in result["rows"].items():
        for system in ("defence", "trained-mixture", "undefended", "plain-purified"):
            block = row["systems"].get(system)
            if block:
                shares = [percent(block.get(k)) for k in ("sensitivity", "specificity", "flagged")]
                unseen = str(block.get("wrong_and_not_flagged", ""))
                cells = [accuracy(block), recall(block["recall"]), *shares, unseen]
                lines.append([name, SYSTEM_NAMES[system], *cells])
    head = ["trained on, tested on: row", "system", "accuracy, %", "recall per kind, %",
            "sensitivity, %", "specificity, %", "flagged, %", "wrong and not flagged"]  # fmt: skip
    return f"{table(head, lines)}\n\n{source(result)}"


def _attack_rows(result: Result) -> dict[str, Result]:
    order = ("clean", "A0", "A0-8bit")
    return {name: result["rows"][name] for name in order if name in result["rows"]}


def _with_classes(block: Result | None) -> str:
    if not block:
        return ""
    return "; ".join(
        [accuracy(block), " / ".join(percent(block.get(k)) for k in ("sensitivity", "specificity"))]
    )


def _beside(block: Result) -> list[str]:
    values = [percent(block.get(k)) for k in ("sensitivity", "specificity", "balanced_accuracy")]
    auc, error = block.get("auc"), block.get("calibration_error")
    flagged = percent(block.get("flagged"))
    return [*values, number(auc), number(error), flagged]
