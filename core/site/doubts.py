"""Sets of scans that cannot set an operating point, each told in one sentence."""

from __future__ import annotations

from torch import Tensor

from core.site.operating_point import SiteError

ASSUMED = 0.5  # prevalence where none is named
MIN_SCANS = 50
MAX_REFUSED = 0.5  # share of scans that the system cannot judge
MAX_ONE_SIDED = 0.95  # share of scans with one answer
MIN_SPREAD = 1.5  # in log-odds, from the first decile to the ninth


def check_scans(refused: Tensor) -> None:
    """Check that there are enough scans; `refused` (N,) marks those that cannot be judged.

    Raises:
        SiteError: fewer than `MIN_SCANS` can be judged, or most cannot.
    """
    count, bad = len(refused), int(refused.sum())
    if count and bad > MAX_REFUSED * count:
        raise SiteError(
            f"{bad} of {count} scans are unlike brain MRI and cannot be judged: choose scans of "
            "the head."
        )
    if count - bad < MIN_SCANS:
        raise SiteError(
            f"Only {count - bad} scans can be judged: an operating point needs at least "
            f"{MIN_SCANS}."
        )


def describe_doubt(log_odds: Tensor) -> str:
    """Return why log-odds (N,) look like those of one class, or '' if they do not.

    Without labels it cannot be known: a site that is misread looks the same.
    """
    share = float((log_odds >= 0).double().mean())
    low, high = log_odds.double().quantile(log_odds.new_tensor([0.1, 0.9]).double()).tolist()
    if max(share, 1 - share) >= MAX_ONE_SIDED:
        answer = "tumour" if share > 0.5 else "no tumour"
        return f"nearly all scans are read as '{answer}'"
    return "all scans are read nearly alike" if high - low < MIN_SPREAD else ""


def ask_prevalence(doubt: str, how: str) -> str:
    """Say why no prevalence is assumed for scans in doubt, and how to name one."""
    return (
        f"The scans may hold one class, as {doubt}: if they hold both, name the share with a "
        f"tumour {how}."
    )
