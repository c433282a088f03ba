"""README tables of the ladder: the worst case of each system, row by row, detection, noise."""

from __future__ import annotations

from bench.markdown import (
    LADDERS,
    Result,
    Results,
    accuracy,
    area,
    by_class,
    number,
    percent,
    recall,
    results_of,
    source,
    span,
    table,
)
from bench.robustness.attacks import ORDER, RUNGS

COUNTED = (
    "Rows are tried on scans that a system still reads right, and on a few that are tried by every "
    "row so that rows can be compared; A9b and A10 on fewer. The worst case counts each scan"
)
FELL = (
    "Under each attack: how many fell of the scans that it was tried on and that withstood all "
    "rows to the left, as attacked or in 8 bits; unseen: how many it got misread without an alarm, "
    "of those that it was tried on and that are read right when clean; empty: no attack on such a "
    "system; not yet: the worst case may still fall. A8, which knows the noise, is A3 itself where "
    "the noise is frozen; what it does to noise that is drawn anew stands below"
)


def ladder(results: Results) -> str:
    """Clean and worst case of every system, and how many scans fell to which row."""
    parts = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        known = {r.get("row") for r in result["rows"].values()}
        known.update(n for s in result["standings"].values() for n in s.get("to_come", ()))
        names = [n for n in ORDER if n in known]
        lines = []
        for standing in result["standings"].values():
            cells = [accuracy(standing[key]) for key in ("clean", "worst", "worst_8bit")]
            cells.insert(2, by_class(standing["worst"]["recall"]))
            fell = [_fell(standing, name) for name in names]
            lines.append([standing["meaning"], *cells, _rival(standing), *fell])
        head = ["system", "clean, %", "worst case, %", "tumour / no tumour in it, %",
                "worst case in 8 bits, %", "p", *names]  # fmt: skip
        note = "; ".join(f"{n}: {_meaning(result, n)}" for n in names)
        parts.append(
            f"**{protocol}**\n\n{table(head, lines)}\n\n{COUNTED} over all rows, with 95 % by scan "
            f"and by group. {FELL}. p: McNemar's exact test of the worst case against the whole "
            "defence. JPEG and bits have no gradient; rows that need one take the identity's. "
            f"{note}. {source(result)}"
        )
    return "\n\n".join(parts)


def ladder_sources(results: Results) -> str:
    """The worst case of the whole defence by source and kind of tumour, or of the first system."""
    lines = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        known = result["standings"]
        first = known.get("defence") or next(iter(known.values()))
        for key in ("clean", "worst", "worst_8bit"):
            block = first[key]
            places = block.get("sources") or {"": block}
            for place, part in places.items():
                lines.append(
                    [
                        protocol,
                        place,
                        key.replace("_", ", "),
                        accuracy(part),
                        recall(part["recall"]),
                    ]
                )
    return table(["protocol", "source", "", "accuracy, %", "read right of each kind, %"], lines)


def ladder_detection(results: Results) -> str:
    """The detector's AUROC against every row's attacked scans, and who got past it."""
    lines, past = [], []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        for system, standing in result["standings"].items():
            for name, found in standing.get("detection", {}).items():
                rates = [percent(found.get(key)) for key in ("tpr_at_5", "tpr_at_1")]
                alarms = percent(found.get("flagged", {}).get("accuracy"))
                area_of = area(found) if "auroc" in found else ""
                lines.append([protocol, system, name, area_of, *rates, alarms, str(found["n"])])
            if "unnoticed" in standing:
                parts = standing["unnoticed"]
                some, more = (parts[key] for key in ("attacked", "as_they_are"))
                past.append(
                    f"{protocol}, {system}: {some['unnoticed']} of the {some['misread']} scans "
                    "that attacks get misread, in some row, and "
                    f"{more['unnoticed']} of the {more['misread']} that are misread as they are"
                )
    head = ["protocol", "system", "row", "AUROC", "found at 5 %, %", "at 1 %, %",
            "alarm at τ, %", "n"]  # fmt: skip
    return (
        f"{table(head, lines)}\n\nAttacked scans in 8 bits, misread or not; intervals by "
        "near-duplicate group; worst: each scan's lowest score over all rows. Found at 5 and 1 %: "
        "above the score that so many of these scans exceed when clean; alarm at τ: above the "
        "threshold that was set on validation scans."
        + (f" Without an alarm: {'; '.join(past)}." if past else "")
    )


def ladder_curve(results: Results) -> str:
    """Accuracy under A3 by size of the perturbation, and what fresh noise changes."""
    parts = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        points = [r for r in result["rows"].values() if "curve" in r]
        if not points:
            continue
        sizes = sorted({p["eps"] for p in points})
        lines = [
            [name, *(accuracy(_at(points, name, eps)) for eps in sizes)]
            for name in dict.fromkeys(p["curve"] for p in points)
        ]
        head = ["A3, accuracy, %", *(f"eps {eps:g}" for eps in sizes)]
        parts.append(f"**{protocol}**\n\n{table(head, lines)}")
        noises = [row for name, row in result["rows"].items() if name.startswith("randomness")]
        parts += [_noise(row) for row in noises]
    if not parts:
        raise KeyError("ladder-*.json with a curve")
    return "\n\n".join(parts)


def _noise(row: Result) -> str:
    lines = []
    for name in ("clean", "A3 with EOT", "A8"):
        found = row[name]
        shot = found["one_shot"]
        once = f"{percent(shot['mean'])} ± {percent(shot['sd'])} [{span(shot['interval'])}]"
        if name == "A8":  # it knows one draw, and is judged by that
            lines.append([f"{name}, the draw that it knows", percent(found["first"])])
            continue
        cells = [percent(v) for key in ("right_in_all", "vote") for v in found[key].values()]
        lines.append([name, once, *cells])
    times = list(row["clean"]["vote"])
    lines = [line + [""] * (2 + 2 * len(times) - len(line)) for line in lines]
    head = ["fresh noise", f"one shot of {row['draws']}, %"]
    head += [f"right in all of {m}, %" for m in times] + [f"vote of {m}, %" for m in times]
    return f"{table(head, lines)}\n\nn = {row['n']}, EOT over {row['eot']} draws."


def _at(points: list[Result], name: str, eps: float) -> Result | None:
    return next((p for p in points if (p["curve"], p["eps"]) == (name, eps)), None)


def _fell(standing: Result, name: str) -> str:
    row = standing["falls"].get(name)
    if row is None:
        return "not yet" if name in standing.get("to_come", ()) else ""
    unseen = f", {row['unnoticed']} unseen" if row.get("unnoticed") else ""
    return f"{row['fell']}/{row['tried']}{unseen}"


def _rival(standing: Result) -> str:
    if "mcnemar" not in standing:
        return ""
    p = standing["mcnemar"]["p"]
    return "< 0.001" if p < 0.001 else number(p)


def _meaning(result: Result, name: str) -> str:
    said = [r["meaning"] for r in result["rows"].values() if r.get("row") == name]
    return (said or [rung.meaning for rung in RUNGS if rung.name == name])[0]
