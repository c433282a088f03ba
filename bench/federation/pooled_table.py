"""README table: a federation's weights against those of pooled training."""

from __future__ import annotations

from bench.markdown import (
    PROTOCOLS,
    Results,
    accuracy,
    by_class,
    number,
    percent,
    results_of,
    source,
    table,
)
from bench.robustness.old_tables import SYSTEM_NAMES

KINDS = ("federated", "pooled")


def pooled(results: Results) -> str:
    """Accuracy side by side with the difference, and the errors of the other two phases."""
    parts = []
    for protocol, result in results_of(results, "pooled", PROTOCOLS).items():
        lines, errors, moved = [], [], ""
        for name, row in result["rows"].items():
            for system, gap in row.get("difference", {}).items():
                low, high = gap["interval_by_group"]
                lines.append(
                    [
                        name,
                        SYSTEM_NAMES[system],
                        *(accuracy(row[system][kind]) for kind in KINDS),
                        "; ".join(
                            filter(
                                None, (by_class(row[system][k].get("recall", {})) for k in KINDS)
                            )
                        ),
                        f"{gap['points']:+.1f} [{low:+.1f} to {high:+.1f}]",
                    ]
                )
            if "matrix" in row:
                own, other = (percent(row[k]) for k in ("diagonal", "off_diagonal"))
                moved = (
                    f"\n\nA hospital reads {own} % right of its scans when attacked through "
                    f"its own classifier, {other} % when attacked through another hospital's "
                    f"(PGD-20, n = {row['n']}, each attacked by all)."
                )
            elif "difference" not in row:
                both = row["federated"], row["pooled"]
                errors += [[name, key, *(number(b[key], 4) for b in both)] for key in both[0]]
        head = ["row", "system", "federated, %", "pooled, %", "tumour / no tumour of each, %",
                "difference, points [95 % by group]"]  # fmt: skip
        text = f"**{protocol}**\n\n{table(head, lines)}"
        text += f"\n\n{table(['network', 'error', 'federated', 'pooled'], errors)}"
        parts.append(f"{text}{moved}\n\n{source(result)}")
    return "\n\n".join(parts)
