"""Tables of the command `explanations`: by source, by size and kind, deletion, paired test."""

from __future__ import annotations

from collections.abc import Iterator

from bench import markdown as md
from bench.explanations.deletion import CONTROL, MARKED, MASK, ROOMY
from bench.unseen.sizes import SIZES
from train.data.split import PROTOCOLS

CLEAN_KEY, APGD_KEY, MAP_KEY = "clean", "apgd", "map"
TITLES = {CLEAN_KEY: "clean", APGD_KEY: "APGD", MAP_KEY: "attack on the map alone"}
FIGURES = ("pointing", "dice", "energy", "recall", "empty")
HEAD = (
    "highest point in the tumour, %",
    "Dice",
    "energy in the tumour, %",
    "tumours marked, %",
    "empty on healthy, %",
)


def render_maps(results: md.Results) -> str:
    """Render the figures of every map by source, with their means."""
    parts = []
    for protocol, result in _measured(results):
        lines = []
        for attack, row in _rows(result):
            for name, found in row["maps"].items():
                for source, block in found["sources"].items():
                    lines.append([source, TITLES[attack], name, _count(block), *_figures(block)])
                mean = found["mean"]
                named = f"mean of {', '.join(mean['sources'])}"
                lines.append([named, TITLES[attack], name, "", *_figures(mean)])
        levels = "; ".join(
            f"{name} {md.number(found['level'], 3)}, Dice {md.number(found['dice'], 2)}, "
            f"{md.percent(found['empty'])} % of healthy scans empty there"
            for name, found in result["rows"]["levels"]["maps"].items()
        )
        head = ["source", "", "map", "outlined + healthy", *HEAD, "by chance, %"]
        parts += [
            f"**{protocol}**",
            md.table(head, lines),
            f"Levels from which a map marks a tumour, chosen on validation scans: {levels}. By "
            "chance: the tumour's share of the head. Of experts with a tumour map, Grad-CAM "
            f"explains the global part of the answer alone. {md.source(result)}",
        ]
    return "\n\n".join(parts)


def render_tumours(results: md.Results) -> str:
    """Render the figures of every map by size and kind of the tumour."""
    lines, limits = [], ()
    for protocol, result in _measured(results):
        for attack, row in _rows(result):
            limits = row["size_limits"]
            for name, found in row["maps"].items():
                for source, block in found["sources"].items():
                    for key, part in [*block["sizes"].items(), *block["kinds"].items()]:
                        cells = [protocol, source, TITLES[attack], name, key, _count(part)]
                        lines.append([*cells, *_figures(part)[:-2], _chance(part)])
    head = ["protocol", "source", "", "map", "tumours", "n", *HEAD[:-1], "by chance, %"]
    low, high = (md.number(100 * limit, 1) for limit in limits)
    small, _, large = SIZES
    note = f"Size: the mask's share of the head; {small} below {low} %, {large} from {high} %."
    return f"{md.table(head, lines)}\n\n{note}"


def render_deletion(results: md.Results) -> str:
    """Render how often the answer turns when a region is removed."""
    lines = []
    for protocol, result in _measured(results):
        for attack in TITLES:
            row = result["rows"].get(f"deletion: {attack}")
            if not row:
                continue
            start = [protocol, TITLES[attack]]
            lines.append([*start, "mask", *_turned(row[MASK]), "", "", str(row["found"])])
            for name, found in row["maps"].items():
                marked, roomy, control = (_turned(found[k]) for k in (MARKED, ROOMY, CONTROL))
                left = " / ".join(
                    str(found[key]) for key in ("nothing", "too_much", "without_room")
                )
                pair = [roomy[1], control[1]]
                lines.append([*start, name, *marked, *pair, f"{row['found']}; {left}"])
    head = ["protocol", "", "removed", "by source, %", "mean of the sources, %"]
    head += ["with room for a control region, %", "control region, %"]
    head += ["found; nothing marked / too much / no room"]
    note = (
        "The share of found tumours whose answer turns to 'no tumour' when the region is filled "
        "from its rim (Laplace's equation, with noise as around it), which no training does. The "
        "control region has the same shape elsewhere in the head, off the tumour."
    )
    return f"{md.table(head, lines)}\n\n{note}"


def render_paired(results: md.Results) -> str:
    """Render the paired test against other weights."""
    lines = []
    for protocol, result in _measured(results):
        row = result["rows"].get("against")
        if row:
            worst = [md.accuracy(block) for block in row["worst"]]
            only = f"{row['only_first']} / {row['only_second']}"
            lines.append([protocol, *worst, only, md.number(row["p"], 4)])
    if not lines:
        return "No other weights were compared."
    head = ["protocol", "worst case, %", "the other weights', %", "right in one alone", "p"]
    return md.table(head, lines)


def _measured(results: md.Results) -> Iterator[tuple[str, md.Result]]:
    yield from md.results_of(results, "explanations", tuple(PROTOCOLS)).items()


def _rows(result: md.Result) -> Iterator[tuple[str, md.Result]]:
    for attack in TITLES:
        if attack in result["rows"]:
            yield attack, result["rows"][attack]


def _count(block: md.Result) -> str:
    tumours, healthy = (block.get(key, {"n": 0})["n"] for key in ("pointing", "empty"))
    return f"{tumours} + {healthy}"


def _figures(block: md.Result) -> list[str]:
    """Format the figures, with what chance would give as the last."""
    cells = [
        _decimal(block.get(key)) if key == "dice" else _percent(block.get(key)) for key in FIGURES
    ]
    return [*cells, _chance(block)]


def _chance(block: md.Result) -> str:
    return md.percent(block["chance"]["value"]) if "chance" in block else ""


def _percent(figure: md.Result | None) -> str:
    if not figure:
        return ""
    text = md.percent(figure["value"])
    return f"{text} [{md.span(figure['interval'])}]" if figure["interval"] else text


def _decimal(figure: md.Result | None) -> str:
    if not figure:
        return ""
    text = md.number(figure["value"], 2)
    if not figure["interval"]:
        return text
    low, high = figure["interval"]
    return f"{text} [{md.number(low, 2)} to {md.number(high, 2)}]"


def _turned(found: md.Result) -> list[str]:
    """Format the shares by source, and their mean."""
    parts = [f"{source} {md.percent(f['value'])}" for source, f in found["sources"].items()]
    return [", ".join(parts), _percent(found.get("mean"))]


TABLES: dict[str, md.Renderer] = {
    "explanations": render_maps,
    "explanations-tumours": render_tumours,
    "explanations-deletion": render_deletion,
    "explanations-paired": render_paired,
}
