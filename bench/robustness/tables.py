"""Tables of accuracy under attack: all scans under the paper's attack, and the attack suite."""

from __future__ import annotations

from collections.abc import Iterable

from bench import markdown as md
from bench.robustness.attacks import NOISE, attack_order, attack_titles, attacks_named, row_names
from bench.robustness.systems import SYSTEM_TITLES

DETECTION_HEAD = (
    "attack", "AUROC", "TPR at 5 % FPR, %", "TPR at 1 % FPR, %", "flagged at τ, %", "n",
)  # fmt: skip
COLUMNS = 4  # systems side by side in the table of attacks


def render_attack_suite(results: md.Results) -> str:
    """Render clean accuracy and worst case of every system."""
    parts = []
    for protocol, result in _suites(results):
        lines = []
        for system, block in result["standings"].items():
            cells = [md.accuracy(block[key]) for key in ("clean", "worst", "worst_8bit")]
            cells.insert(2, md.by_class(block["worst"]["recall"]))
            pending = ", ".join(_titles(block.get("to_come", ())))
            lines.append(
                [_system(system, block), *cells, md.p_value(block.get("mcnemar")), pending]
            )
        head = ["system", "clean, %", "worst case, %", "tumour / no tumour in it, %",
                "worst case, 8 bits, %", "p", "pending attacks"]  # fmt: skip
        parts.append(
            f"**{protocol}**\n\n{md.table(head, lines)}\n\nWorst case: share of scans that are "
            "correct after every attack. 95 % intervals by scan and by patient or group. p: "
            "McNemar's exact test of the worst case against the full pipeline. Pending attacks can "
            f"only lower the worst case. {md.source(result)}"
        )
    return "\n\n".join(parts)


def render_attack_suite_broken(results: md.Results) -> str:
    """Render how many scans each attack broke: attacks as rows, systems as columns."""
    parts = []
    for protocol, result in _suites(results):
        blocks = result["standings"]
        known = {name for b in blocks.values() for name in (*b["falls"], *b.get("to_come", ()))}
        order = [name for name in attack_order() if name in known]
        systems = list(blocks)
        parts.append(f"**{protocol}**")
        for start in range(0, len(systems), COLUMNS):
            some = systems[start : start + COLUMNS]
            head = ["attack", *(_system(s, blocks[s]) for s in some)]
            lines = [[attack_titles()[n], *(_broken(blocks[s], n) for s in some)] for n in order]
            parts.append(md.table(head, lines))
    meanings = "".join(f"\n- {a.title}: {a.meaning}" for a in attacks_named(row_names()))
    return "\n\n".join(parts) + (
        "\n\nBroken / evaluated scans, of those still correct after the attacks above, in full "
        "precision or in 8 bits. Undetected: misread and not flagged, of the scans that are "
        "correct when clean. Empty: the attack does not apply.\n" + meanings
    )


def render_attack_suite_sources(results: md.Results) -> str:
    """Render the full pipeline's worst case by source and kind of tumour."""
    lines = []
    for protocol, result in _suites(results):
        known = result["standings"]
        first = known.get("defence") or next(iter(known.values()))
        for key, title in (("clean", "clean"), ("worst", "worst case"),
                           ("worst_8bit", "worst case, 8 bits")):  # fmt: skip
            places = first[key].get("sources") or {"": first[key]}
            lines += [
                [protocol, place, title, md.accuracy(part), md.recall(part["recall"])]
                for place, part in places.items()
            ]
    return md.table(["protocol", "source", "scans", "accuracy, %", "recall of each kind, %"], lines)


def render_attack_suite_detection(results: md.Results) -> str:
    """Render the detector's AUROC against every attack, and undetected scans."""
    parts, undetected = [], []
    for protocol, result in _suites(results):
        for system, block in result["standings"].items():
            title, lines = _system(system, block), []
            for name, found in block.get("detection", {}).items():
                rates = [md.percent(found.get(key)) for key in ("tpr_at_5", "tpr_at_1")]
                flagged = md.percent(found.get("flagged", {}).get("accuracy"))
                shown = md.area(found) if "auroc" in found else ""
                cells = [shown, *rates, flagged, str(found["n"])]
                lines.append([_try_title(name), *cells])
            if lines:
                parts.append(f"**{protocol}, {title}**\n\n{md.table(DETECTION_HEAD, lines)}")
            if "unnoticed" in block:
                attacked, clean = (block["unnoticed"][k] for k in ("attacked", "as_they_are"))
                undetected.append(
                    f"{protocol}, {title}: {attacked['unnoticed']} of {attacked['misread']} scans "
                    f"broken by an attack, {clean['unnoticed']} of {clean['misread']} misread when "
                    "clean"
                )
    note = (
        "Attacked scans in 8 bits. Intervals by patient or group. Worst case: each scan's "
        "lowest score over all attacks. τ was set on validation scans."
    )
    if undetected:
        note += f" Undetected: {'; '.join(undetected)}."
    return "\n\n".join([*parts, note])


def render_attack_suite_curve(results: md.Results) -> str:
    """Render accuracy under APGD-CE by eps, and the effect of fresh noise."""
    parts = []
    for protocol, result in _suites(results):
        points = [r for r in result["rows"].values() if "curve" in r]
        if not points:
            continue
        sizes = sorted({p["eps"] for p in points})
        lines = [
            [SYSTEM_TITLES.get(name, name), *(md.accuracy(_at(points, name, eps)) for eps in sizes)]
            for name in dict.fromkeys(p["curve"] for p in points)
        ]
        head = ["APGD-CE, accuracy, %", *(f"eps {eps:g}" for eps in sizes)]
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}")
        noises = [row for name, row in result["rows"].items() if name.startswith("randomness")]
        parts += [_noise(row) for row in noises]
    if not parts:
        raise KeyError("ladder-*.json with a curve")
    return "\n\n".join(parts)


def render_robustness(results: md.Results) -> str:
    """Render accuracy of every system without an attack and under the paper's."""
    parts = []
    for protocol, result in md.results_of(results, "robustness", md.PROTOCOLS).items():
        rows = _attack_rows(result)
        systems = list(next(iter(rows.values()))["systems"])
        lines = []
        for system in systems:
            cells = [_with_classes(row["systems"].get(system)) for row in rows.values()]
            lines.append([SYSTEM_TITLES[system], *cells])
        head = ["accuracy, % [95 % by scan; by patient or group]; tumour / no tumour"]
        head += _titles(rows)
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}\n\n{md.source(result)}")
    return "\n\n".join(parts)


def render_figures(results: md.Results) -> str:
    """Render sensitivity, specificity, AUC, calibration and the flagged share."""
    parts = []
    for protocol, result in md.results_of(results, "robustness", md.PROTOCOLS).items():
        lines = []
        for name, row in _attack_rows(result).items():
            for system in ("defence", "undefended"):
                block = row["systems"].get(system)
                if block:
                    lines.append([*_titles([name]), SYSTEM_TITLES[system], *_beside(block)])
        head = ["attack", "system", "sensitivity, %", "specificity, %", "balanced, %", "AUC"]
        head += ["calibration error", "flagged, %"]
        parts.append(f"**{protocol}**\n\n{md.table(head, lines)}")
    return "\n\n".join(parts)


def render_sources(results: md.Results) -> str:
    """Render the full pipeline per source: accuracy, recall per kind of tumour, specificity."""
    result = md.results_of(results, "robustness", ("patients",))["patients"]
    lines = []
    for name, row in _attack_rows(result).items():
        for place, block in row["systems"].get("defence", {}).get("sources", {}).items():
            specificity = md.percent(block.get("specificity"))
            cells = [md.accuracy(block), md.recall(block["recall"]), specificity]
            lines.append([place, *_titles([name]), *cells])
    head = ["source", "attack", "accuracy, %", "recall per kind, %", "specificity, %"]
    return f"{md.table(head, lines)}\n\n{md.source(result)}"


def render_mixture(results: md.Results) -> str:
    """Render attention weights over the test scans."""
    lines = []
    for protocol, result in md.results_of(results, "robustness", md.PROTOCOLS).items():
        for name, row in _attack_rows(result).items():
            weights = row["systems"].get("defence", {}).get("attention")
            if weights:
                cells = [
                    f"{m:.2f} ± {s:.2f}"
                    for m, s in zip(weights["mean"], weights["sd"], strict=True)
                ]
                lines.append([protocol, *_titles([name]), ", ".join(cells)])
    return md.table(["protocol", "attack", "weight of each expert, mean ± sd over scans"], lines)


def _noise(row: md.Result) -> str:
    lines = []
    for name in ("clean", "A3 with EOT", "A8"):
        found = row[name]
        shot = found["one_shot"]
        once = (
            f"{md.percent(shot['mean'])} ± {md.percent(shot['sd'])} [{md.span(shot['interval'])}]"
        )
        if name == "A8":  # it knows one draw: its result is accuracy with that draw
            lines.append(["known noise, with the draw it knows", md.percent(found["first"])])
            continue
        cells = [md.percent(v) for key in ("right_in_all", "vote") for v in found[key].values()]
        lines.append([name.replace("A3", "APGD-CE"), once, *cells])
    times = list(row["clean"]["vote"])
    lines = [line + [""] * (2 + 2 * len(times) - len(line)) for line in lines]
    head = ["fresh noise", f"one shot of {row['draws']}, %"]
    head += [f"correct in all of {m}, %" for m in times] + [f"vote of {m}, %" for m in times]
    return f"{md.table(head, lines)}\n\nn = {row['n']}, EOT over {row['eot']} draws."


def _suites(results: md.Results) -> Iterable[tuple[str, md.Result]]:
    return md.results_of(results, "ladder", md.SUITE_NAMES).items()


def _system(name: str, block: md.Result) -> str:
    return SYSTEM_TITLES.get(name) or str(block["meaning"])


def _titles(names: Iterable[str]) -> list[str]:
    known = attack_titles()
    return [known.get(name, name) for name in names]


def _try_title(name: str) -> str:
    """Return the title of 'A9 (2)', the second try of an attack."""
    key, _, number_of = name.partition(" ")
    known = {**attack_titles(), "worst": "worst case", NOISE: "random noise"}
    return " ".join(filter(None, (known.get(key, key), number_of)))


def _broken(block: md.Result, name: str) -> str:
    row = block["falls"].get(name)
    if row is None:
        return "pending" if name in block.get("to_come", ()) else ""
    undetected = f", {row['unnoticed']} undetected" if row.get("unnoticed") else ""
    return f"{row['fell']}/{row['tried']}{undetected}"


def _at(points: list[md.Result], name: str, eps: float) -> md.Result | None:
    return next((p for p in points if (p["curve"], p["eps"]) == (name, eps)), None)


def _attack_rows(result: md.Result) -> dict[str, md.Result]:
    order = ("clean", "A0", "A0-8bit")
    return {name: result["rows"][name] for name in order if name in result["rows"]}


def _with_classes(block: md.Result | None) -> str:
    if not block:
        return ""
    return "; ".join(
        [
            md.accuracy(block),
            " / ".join(md.percent(block.get(k)) for k in ("sensitivity", "specificity")),
        ]
    )


def _beside(block: md.Result) -> list[str]:
    values = [md.percent(block.get(k)) for k in ("sensitivity", "specificity", "balanced_accuracy")]
    auc, error = block.get("auc"), block.get("calibration_error")
    flagged = md.percent(block.get("flagged"))
    return [*values, md.number(auc), md.number(error), flagged]


TABLES: dict[str, md.Renderer] = {
    "robustness": render_robustness,
    "figures": render_figures,
    "sources": render_sources,
    "mixture": render_mixture,
    "attack-suite": render_attack_suite,
    "attack-suite-broken": render_attack_suite_broken,
    "attack-suite-sources": render_attack_suite_sources,
    "attack-suite-detection": render_attack_suite_detection,
    "attack-suite-curve": render_attack_suite_curve,
}
