"""Tables of the command `unseen`: by source, by view, by kind and size of tumour, by patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench import markdown as md
from bench.robustness.attacks import A0, CLEAN
from bench.robustness.systems import SYSTEM_TITLES
from bench.unseen.sizes import SIZES
from train.data.split import PROTOCOLS

SYSTEMS = ("defence", "trained-mixture", "undefended")
DEFENCE = SYSTEMS[0]
ALL, NEVER = "all", "never trained on"
TITLES = {CLEAN.key: "clean", A0.key: "PGD-7"}
FIGURES = ("auc", "balanced", "recall", "specificity")
FIGURE_HEAD = ("AUC", "balanced, %", "recall, %", "specificity, %")


class Place(NamedTuple):
    """Figures of one attack, scope and source."""

    attack: str
    scope: str
    source: str
    blocks: dict[str, md.Result]  # of each system
    shares: md.Result  # of alarms and 'cannot judge'


def render_sources(results: md.Results) -> str:
    """Render AUC, balanced accuracy, recall and specificity of every system by source.

    Of all scans only the sources of which some were used in training: the rest is the same twice.
    """
    parts = []
    for protocol, result in _measured(results):
        overlap = result["rows"]["overlap"]["sources"]
        shared = [source for source, found in overlap.items() if found["left"] < found["n"]]
        parts_of_it = [s for s in result["rows"][CLEAN.key]["scopes"] if s.startswith(f"{NEVER},")]
        tables = [_render_scope(result, s, list(overlap)) for s in (NEVER, *parts_of_it)]
        tables += [_render_scope(result, ALL, shared)] if shared else []
        parts += [f"**{protocol}**", _render_overlap(overlap), *tables]
        parts.append(" ".join([*_name_readers(result), md.source(result)]))
    return "\n\n".join(parts)


def _render_scope(result: md.Result, scope: str, sources: Sequence[str]) -> str:
    lines = []
    for attack, title in TITLES.items():
        for place in _places(result, attack, scope):
            for system, block in place.blocks.items() if place.source in sources else ():
                cells = [place.source, title, SYSTEM_TITLES[system]]
                lines.append([*cells, _count(block), *_figures(block)])
        lines += _means(result, attack, scope)
    head = ["all scans" if scope == ALL else f"scans {scope}", "", "system"]
    return md.table([*head, "tumour + none; units", *FIGURE_HEAD], lines)


def render_views(results: md.Results) -> str:
    """Render the full pipeline by sequence and plane, and how often it warns."""
    lines = []
    for protocol, result in _measured(results):
        for place in _every_place(result):
            block = place.blocks[DEFENCE]
            warned = [_share(place.shares[key]) for key in ("flagged", "refused")]
            start = [protocol, place.source]
            lines.append(
                [*start, "", TITLES[place.attack], _count(block), *_figures(block), *warned]
            )
            for view, part in block["views"].items():
                cells = [*start, view, TITLES[place.attack], _count(part), *_figures(part)]
                lines.append([*cells, "", ""])
    head = ["protocol", "source", "sequence, plane", "", "tumour + none; units", *FIGURE_HEAD]
    return md.table([*head, "alarm, %", "'cannot judge', %"], lines)


def render_tumours(results: md.Results) -> str:
    """Render the full pipeline's recall by kind and by size of the tumour."""
    lines, limits = [], ()
    for protocol, result in _measured(results):
        limits = result["rows"][CLEAN.key]["size_limits"]
        for place in _every_place(result):
            block = place.blocks[DEFENCE]
            if not block["tumours"]:
                continue
            kinds = "; ".join(f"{kind} {_share(part)}" for kind, part in block["kinds"].items())
            sizes = [_share(block["sizes"].get(size)) for size in SIZES]
            lines.append([protocol, place.source, TITLES[place.attack], kinds, *sizes])
    head = ["protocol", "source", "", "recall by kind, %", *(f"{size}, %" for size in SIZES)]
    low, high = (md.number(100 * limit, 1) for limit in limits)
    note = (
        f"Size: the mask's share of the head; small below {low} %, large from {high} %, thirds of "
        "the training tumours. Tumours without a mask are in the kinds alone."
    )
    return f"{md.table(head, lines)}\n\n{note}"


def render_units(results: md.Results) -> str:
    """Render the answers to whole patients."""
    lines = []
    for protocol, result in _measured(results):
        for attack in TITLES:
            for place in _places(result, attack, NEVER):
                for system, block in place.blocks.items():
                    found = block["by_unit"]
                    cells = [protocol, place.source, TITLES[attack], SYSTEM_TITLES[system]]
                    lines.append([*cells, str(block["patients"]), _count(found), *_figures(found)])
    head = ["protocol", "source", "", "system", "known patients", "units with + without tumour"]
    return md.table([*head, *FIGURE_HEAD], lines)


def _name_readers(result: md.Result) -> list[str]:
    hospitals = result["rows"][CLEAN.key]["hospitals"]
    if len(hospitals) < 2:
        return []
    return [
        f"Each scan is read by the one of {len(hospitals)} hospitals whose patients are like it."
    ]


def _render_overlap(overlap: md.Result) -> str:
    lines = []
    for source, found in overlap.items():
        keys = ("n", "used_scans", "used_units", "left", "left_tumours", "left_units")
        lines.append([source, *(str(found[key]) for key in (*keys, "left_patients"))])
    head = ["source", "scans of the test fold", "used themselves", "used by their unit", "left"]
    head += ["with a tumour", "units", "known patients"]
    return md.table(head, lines)


def _measured(results: md.Results) -> Iterator[tuple[str, md.Result]]:
    yield from md.results_of(results, "unseen", tuple(PROTOCOLS)).items()


def _every_place(result: md.Result) -> Iterator[Place]:
    for attack in TITLES:
        yield from _places(result, attack, NEVER)


def _places(result: md.Result, attack: str, scope: str) -> Iterator[Place]:
    found = result["rows"].get(attack, {"scopes": {}})["scopes"].get(scope)
    if found:
        for source, shares in found["sources"].items():
            blocks = {name: s["sources"][source] for name, s in found["systems"].items()}
            yield Place(attack, scope, source, blocks, shares)


def _means(result: md.Result, attack: str, scope: str) -> Iterator[list[str]]:
    found = result["rows"].get(attack, {"scopes": {}})["scopes"].get(scope, {"systems": {}})
    for system, block in found["systems"].items():
        mean = block["mean_balanced"]
        if mean["sources"]:
            name = f"mean of {', '.join(mean['sources'])}"
            cells = [name, TITLES[attack], SYSTEM_TITLES[system], "", ""]
            yield [*cells, render_percent(mean), "", ""]


def _count(block: md.Result) -> str:
    return f"{block['tumours']} + {block['n'] - block['tumours']}; {block['units']}"


def _figures(block: md.Result) -> list[str]:
    cells = [render_percent(block.get(name)) for name in FIGURES[1:]]
    if "auc" not in block:
        return ["", *cells]
    auc = block["auc"]
    return [md.area({"auroc": auc["value"], **_known(auc)}), *cells]


def render_percent(figure: md.Result | None) -> str:
    """Render a figure in % with its interval, where it has one."""
    if not figure:
        return ""
    text, known = md.percent(figure["value"]), _known(figure)
    return f"{text} [{md.span(known['interval'])}]" if known else text


def _known(figure: md.Result) -> md.Result:
    """Return the interval of a figure, or nothing where resampling cannot tell it."""
    return {"interval": figure["interval"]} if figure["interval"] else {}


def _share(figure: md.Result | None) -> str:
    return f"{render_percent(figure)} {figure['k']}/{figure['n']}" if figure else ""


TABLES: dict[str, md.Renderer] = {
    "unseen": render_sources,
    "unseen-views": render_views,
    "unseen-tumours": render_tumours,
    "unseen-units": render_units,
}
