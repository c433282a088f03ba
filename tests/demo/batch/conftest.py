"""A reading that was made up: its values can be replaced."""

from __future__ import annotations

import pytest

from demo.batch.reading import Reading


@pytest.fixture
def reading() -> Reading:
    """Return 'tumour' at 90 %, stable, without a map."""
    return Reading(
        score_name="fused", score=0.0, tau=1.0, flagged=False, t_star=20,
        tumour_probability_undefended=0.9, tumour_probability=0.9, can_judge=True, stable=True,
        stable_radius=0.015, stability_radius=0.0075, purifying_turns=False, expert_shares=(),
        operating_point=2.2, overall_share=0.0, tumour_regions=None, tumour_area=None, where="",
        ms=1.0, seed=0, scan_sha256="",
    )  # fmt: skip
