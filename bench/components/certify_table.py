"""README table of the certificate: what is proven, beside what a constant answer has."""

from __future__ import annotations

from bench.markdown import (
    PROTOCOLS,
    Result,
    Results,
    accuracy,
    percent,
    results_of,
    source,
    span,
    table,
)


def certify(results: Results) -> str:
    """Balanced certified accuracy, per class and source, and along a curve."""
    parts = []
    for protocol, result in results_of(results, "certify", PROTOCOLS).items():
        said, row = result["rows"]["certificates"], result["rows"]["accuracy"]
        certified, clean = row["certified"], row["clean"]
        at = f"certified at L∞ ε = {row['eps']:g}, %"
        lines = [["all scans, balanced", _balanced(certified), _balanced(clean)]]
        for name, label in (("sensitivity", "tumours"), ("specificity", "no tumour")):
            lines.append([label, accuracy(certified[name]), accuracy(clean[name])])
        lines += [
            [f"source {name}, balanced", _balanced(part), _balanced(clean["sources"][name])]
            for name, part in certified.get("sources", {}).items()
        ]
        lines.append(["one answer for every scan, balanced", *[percent(row["constant"])] * 2])
        head = ["", f"{at} [95 % by scan; by group]", "read right with any radius, %"]
        curve = table(
            ["L∞ ε", *row["curve"]], [["balanced, %", *map(percent, row["curve"].values())]]
        )
        missed = row["abstained"]
        seen = f"{said['pixels']} pixels of {said['side']} x {said['side']}"
        facts = (
            f"Sigma {said['sigma']:g} on {seen}; {said['n0']} noises choose, {said['n']} others "
            f"bound (Clopper-Pearson, alpha {said['alpha']:g}), so that nothing above "
            f"{row['largest_eps']:.4f} can be certified. Of {missed['k']} of {missed['n']} scans "
            "nothing is said, which counts as wrong."
        )
        parts.append(
            f"**{protocol}**\n\n{table(head, lines)}\n\n{curve}\n\n{facts} {source(result)}"
        )
    return "\n\n".join(parts)


def _balanced(part: Result) -> str:
    intervals = "; ".join(span(part[name]) for name in ("interval", "interval_by_group"))
    return f"{percent(part['balanced'])} [{intervals}]"
