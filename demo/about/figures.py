"""The figures of the tab About, in the order in which they are shown."""

from __future__ import annotations

from demo.about.federation_figure import build_federation_figure
from demo.about.method_figure import build_method_figure
from demo.about.mixture_figure import build_mixture_figure
from demo.about.svg import Figure


def build_figures() -> tuple[Figure, ...]:
    """Return the paper's figures 1, 2(a) and 2(b) as they are here."""
    return build_federation_figure(), build_mixture_figure(), build_method_figure()
