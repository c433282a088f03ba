"""README table: a federation's weights against those of pooled training."""

from __future__ import annotations

from bench.markdown import PROTOCOLS, Results, accuracy, number, results_of, source, table
from bench.tables import SYSTEM_NAMES


def pooled(results: Results) -> str:
    """Accuracy side by side with the difference, and the errors of the other two phases."""
    parts = []
    for protocol, result in results_of(results, "pooled", PROTOCOLS).items():
        lines, errors = [], []
        for name, row in result["rows"].items():
            for system, gap in row.get("difference", {}).items():
                low, high = gap["interval_by_group"]
                lines.append(
                    [
                        name,
                        SYSTEM_NAMES[system],
                        *(accuracy(row[system][kind]) for kind in ("federated", "pooled")),
                        f"{gap['points']:+.1f} [{low:+.1f} to {high:+.1f}]",
                    ]
                )
            if "difference" not in row:
                both = row["federated"], row["pooled"]
                errors += [[name, key, *(number(b[key], 4) for b in both)] for key in both[0]]
        head = ["row", "system", "federated, %", "pooled, %", "difference, points [95 % by group]"]
        text = f"**{protocol}**\n\n{table(head, lines)}"
        text += f"\n\n{table(['network', 'error', 'federated', 'pooled'], errors)}"
        parts.append(f"{text}\n\n{source(result)}")
    return "\n\n".join(parts)
