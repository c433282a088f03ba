"""README tables of the ladder: the worst case of each system, row by row, detection, noise."""

from __future__ import annotations

from bench.markdown import (
    PROTOCOLS,
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
from bench.rungs import ORDER, RUNGS

COUNTED = (
    "Rows are tried on scans that a system still reads right, and on a few that are tried by every "
    "row so that rows can be compared; A9b and A10 on fewer. The worst case counts each scan"
)


def ladder(results: Results) -> str:
    """Clean and worst case of every system, and how many scans fell to which row."""
    parts = []
    for protocol, result in results_of(results, "ladder", PROTOCOLS).items():
        known = {r.get("row") for r in result["rows"].values()}
        known.update(n for s in result["standings"].values() for n in s.get("to_come", ()))
        names = [n for n in ORDER if n in known]
        lines = []
        for system, standing in result["standings"].items():
            cells = [accuracy(standing[key]) for key in ("clean", "worst", "worst_8bit")]
            cells.insert(2, by_class(standing["worst"]["recall"]))
            rows, to_come = result["rows"], standing.get("to_come", ())
            fell = [_fell(rows.get(f"{name}: {system}"), name in to_come) for name in names]
            lines.append([standing["meaning"], *cells, _rival(standing), *fell])
        head = ["system", "clean, %", "worst case, %", "tumour / no tumour in it, %",
                "worst case in 8 bits, %", "p", *names]  # fmt: skip
        note = "; ".join(f"{n}: {_meaning(result, n)}" for n in names)
        parts.append(
            f"**{protocol}**\n\n{table(head, lines)}\n\n{COUNTED} over all rows, with 95 % by scan "
            "and by group. Under each attack: scans that fell, of those tried; empty: no attack on "
            "such a system; not yet: the worst case may still fall. p: McNemar's exact test of the "
            "worst case against the whole defence. JPEG and bits have no gradient; rows that need "
            f"one take the identity's. {note}. {source(result)}"
        )
    return "\n\n".join(parts)


def ladder_sources(results: Results) -> str:
    """The worst case of the whole defence by source and kind of tumour, or of the first system."""
    lines = []
    for protocol, result in results_of(results, "ladder", PROTOCOLS).items():
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
    for protocol, result in results_of(results, "ladder", PROTOCOLS).items():
        for system, standing in result["standings"].items():
            for name, found in standing.get("detection", {}).items():
                rates = [percent(found["tpr_at_5"]), percent(found["tpr_at_1"])]
                cells = [area(found), *rates, str(found["n"])]
                lines.append([protocol, system, name, *cells])
            if "unnoticed" in standing:
                safe = standing["unnoticed"]
                past.append(f"{protocol}, {system}: {safe['n'] - safe['k']} of {safe['n']}")
    head = ["protocol", "system", "row", "AUROC", "found at 5 %, %", "at 1 %, %", "n"]
    return (
        f"{table(head, lines)}\n\nAttacked scans in 8 bits, misread or not; intervals by "
        "near-duplicate group; worst: each scan's lowest score over all rows. Misread under some "
        f"row without an alarm: {'; '.join(past)}."
    )


def ladder_curve(results: Results) -> str:
    """Accuracy under A3 by size of the perturbation, and what fresh noise changes."""
    parts = []
    for protocol, result in results_of(results, "ladder", PROTOCOLS).items():
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


def _fell(row: Result | None, is_to_come: bool) -> str:
    if row is None:
        return "not yet" if is_to_come else ""
    return f"{row['fell']}/{row['tried']}"


def _rival(standing: Result) -> str:
    if "mcnemar" not in standing:
        return ""
    p = standing["mcnemar"]["p"]
    return "< 0.001" if p < 0.001 else number(p)


def _meaning(result: Result, name: str) -> str:
    said = [r["meaning"] for r in result["rows"].values() if r.get("row") == name]
    return (said or [rung.meaning for rung in RUNGS if rung.name == name])[0]
