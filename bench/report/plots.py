"""The report's plots, each from plain numbers; shares come in [0, 1] and are shown in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.report.svg import LEFT, RIGHT, SERIES, TOP, WIDTH, Canvas, Plot, tick_text, ticks
from core import metrics

WHOLE = (0.0, 25.0, 50.0, 75.0, 100.0)
APART = 0.11  # of systems at one eps, in doublings
NAME, VALUE = 44, 42  # columns beside bars, in pixels


class Share(NamedTuple):
    """A share in [0, 1] under a name, with its 95 % interval."""

    name: str
    share: float
    interval: Sequence[float]


class Curve(NamedTuple):
    """ROC: the share found at false alarms of 0, 1, ... 100 %."""

    name: str
    found: Sequence[float]
    series: int
    dashed: bool = False


def over_eps(systems: Mapping[str, Sequence[tuple[float, Share]]]) -> str:
    """Accuracy of each system by size of the perturbation, on a log axis; 0 stands apart, left."""
    sizes = sorted({eps for points in systems.values() for eps, _ in points if eps > 0})
    ends = (math.log2(sizes[0]) - 1, math.log2(sizes[-1]))
    plot = Plot((ends[0] - 0.25, ends[1] + 0.25), (0, 100), 250, len(systems))
    places = {0.0: ends[0], **{eps: math.log2(eps) for eps in sizes}}
    names = {place: tick_text(eps) for eps, place in places.items()}
    plot.axes(names, WHOLE, "eps (L-inf, pixels in [0, 1]; log scale)", "accuracy, %")
    told = []
    for k, (name, points) in enumerate(systems.items()):
        beside = (k - (len(systems) - 1) / 2) * APART  # systems that agree hide each other
        shown = [(places[eps] + beside, 100 * p.share) for eps, p in points]
        style = f"line s{k % SERIES} d{k % SERIES}"
        plot.line([xy for xy, (eps, _) in zip(shown, points, strict=True) if eps > 0], style)
        for (x, y), (_, p) in zip(shown, points, strict=True):
            plot.whisker(x, [100 * v for v in p.interval], f"line s{k % SERIES}")
            plot.mark(x, y, k)
        plot.key(name, style, k)
        told.append(f"{name}: " + ", ".join(f"{100 * p.share:.1f} at {e:g}" for e, p in points))
    return plot.canvas.svg(f"Accuracy in percent by eps. {'; '.join(told)}.")


def bars(what: str, shares: Sequence[Share], *, above: bool = False, series: int = 0) -> str:
    """Lying bars with intervals, names beside them or, where they are long, above."""
    pitch, start = (36, 0) if above else (20, NAME)
    canvas = Canvas(TOP + pitch * len(shares) + 22)
    room = WIDTH - RIGHT - VALUE - start

    def across(percent: float) -> float:
        return start + percent / 100 * room

    foot = TOP + pitch * len(shares)
    for tick in WHOLE:
        canvas.line([(across(tick), TOP - 4), (across(tick), foot)], "grid-line")
        anchor = "start" if above and not tick else "middle"
        canvas.text((across(tick), foot + 14), tick_text(tick), anchor)
    for i, part in enumerate(shares):
        middle = TOP + pitch * i + (25 if above else 10)
        canvas.box((start, middle - 6), (part.share * room, 12), f"bar s{series}")
        low, high = (across(100 * v) for v in part.interval)
        canvas.line([(low, middle), (high, middle)], "whisker")
        for end in (low, high):
            canvas.line([(end, middle - 4), (end, middle + 4)], "whisker")
        name_at = (0.0, middle - 11) if above else (start - 5.0, middle + 4)
        canvas.text(name_at, part.name, "start" if above else "end")
        canvas.text((WIDTH - RIGHT, middle + 4), f"{100 * part.share:.1f}", "end", "value")
    canvas.text((WIDTH - RIGHT, foot + 14), "%", "end")
    told = "; ".join(f"{p.name} {100 * p.share:.1f}" for p in shares)
    return canvas.svg(f"{what}, in percent: {told}.")


def roc(what: str, curves: Sequence[Curve]) -> str:
    """Scans found by false alarms allowed; names are expected to hold the AUROC."""
    plot = Plot((0, 100), (0, 100), 280, len(curves))
    plot.axes(WHOLE, WHOLE, "clean scans flagged, %", "attacked scans found, %")
    plot.line([(0, 0), (100, 100)], "chance")
    for curve in curves:
        style = f"line s{curve.series % SERIES}" + (" d1" if curve.dashed else "")
        step = 100 / (len(curve.found) - 1)
        points = [(step * i, 100 * found) for i, found in enumerate(curve.found)]
        plot.line([(0, 0), *points], style)
        plot.key(curve.name, style)
    return plot.canvas.svg(f"{what}: {'; '.join(c.name for c in curves)}.")


def histograms(
    what: str,
    clean: Sequence[int],
    attacked: Sequence[int],
    span: tuple[float, float],
    tau: float | None,
) -> str:
    """Counts over equal bins of `span`, clean filled and attacked outlined, with tau marked."""
    low, high = span
    heights = ticks(max(*clean, *attacked), 4)
    plot = Plot(span, (0, float(heights[-1])), 200, 2 if tau is None else 3)
    places = [low + (high - low) / len(clean) * i for i in range(len(clean) + 1)]
    step = ticks(int(high - low), 6)
    plot.axes([low + s for s in step if low + s <= high], heights, "score", "scans")
    outline: list[tuple[float, float]] = []
    for i, count in enumerate(clean):
        if count:
            plot.bar((places[i], places[i + 1]), count, "fill s0")
        outline += [(places[i], attacked[i]), (places[i + 1], attacked[i])]
    plot.line([(low, 0), *outline, (high, 0)], "line s1")
    plot.key("clean", "thick s0")
    plot.key("attacked", "line s1")
    if tau is not None:
        plot.line([(tau, 0), (tau, heights[-1])], "tau")
        plot.key(f"threshold τ = {tau:.3g}", "tau")
    n = f"{sum(clean)} clean and {sum(attacked)} attacked scans"
    return plot.canvas.svg(f"Histogram of scores, {what}: {n}.")


def reliability(
    what: str, n: Sequence[int], tumours: Sequence[int], mean: Sequence[float | None], series: int
) -> str:
    """Share of tumours by probability said, with Wilson's intervals, each bin's scans on top."""
    plot = Plot((0, 100), (0, 112), 290)
    plot.axes(WHOLE, WHOLE, "probability of a tumour, mean of the bin, %", "tumours among them, %")
    plot.line([(0, 0), (100, 100)], "chance")
    known, told = [], []
    for i, (scans, k, said) in enumerate(zip(n, tumours, mean, strict=True)):
        middle = 100 * (i + 0.5) / len(n)
        x, y = plot.at(middle, 105)
        plot.canvas.text((x, y), str(scans), "middle", "count")
        if scans and said is not None:
            interval = [100 * v for v in metrics.wilson_interval(k, scans)]
            plot.whisker(100 * said, interval, f"line s{series}")
            known.append((100 * said, 100 * k / scans))
            told.append(f"{known[-1][1]:.0f} of {scans} at {known[-1][0]:.0f}")
    plot.line(known, f"line s{series}")
    for point in known:
        plot.mark(*point, series)
    plot.canvas.text((LEFT - 5, plot.at(0, 105)[1]), "scans", "end", "count")
    return plot.canvas.svg(f"{what}, percent of tumours by probability: {'; '.join(told)}.")
