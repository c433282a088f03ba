"""Sentences of the page that depend on a result, and the fixed notices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demo.analysis.attack import AttackSettings

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis

RESEARCH = "Research and teaching only - not for clinical use"
NOTICE = f"{RESEARCH}. On a public server upload no patient data."
PUBLIC_NOTICE = f"{RESEARCH}. This page is public: upload no patient data."
CLASSES = ("no tumour", "tumour")
ERROR_CAPTION = "What the autoencoder could not predict, not disease."
AIMS = {
    "plain": "the plain classifier",
    "mixture": "the trained mixture, without detector and purifier",
    "defence": "the whole defence (known to the attacker; the mixture, where it reads the scan)",
}
MADE_FOR = {
    "plain": "the plain classifier",
    "mixture": "the mixture",
    "defence": "the whole defence",
}
STALE_MESSAGE = "A control has changed since: press Analyse to renew these results."
NO_JUDGEMENT = "cannot judge"
UNFAMILIAR_PICTURE = "unlike the brain MRI slices that the system has learned from"
CLEARED_MESSAGE = (
    "Cleared: the scan, the attacked scan and all results are gone; nothing was kept on disk, and "
    "the upload's pixels leave the server's memory within 20 minutes."
)


def format_percent(share: float) -> str:
    """Format a probability as a whole percentage that never claims certainty."""
    if share < 0.01:
        return "< 1 %"
    if share > 0.99:
        return "> 99 %"
    return f"{share * 100:.0f} %"


def list_words(words: Sequence[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def name_class(tumour_probability: float) -> str:
    """Name the more probable class."""
    return CLASSES[int(tumour_probability >= 0.5)]


def format_confidence(tumour_probability: float) -> str:
    """Format the probability of the more probable class."""
    return format_percent(max(tumour_probability, 1 - tumour_probability))


def name_defended(d: Diagnosis) -> str:
    """Name the defended output of a reading: a class, or that it cannot judge."""
    return name_class(d.tumour_probability) if d.can_judge else NO_JUDGEMENT


def describe_refusal(name: str) -> tuple[str, str]:
    """Describe the refusal of an out-of-distribution scan: tone and one sentence."""
    name = name.capitalize()
    reason = f"The picture is {UNFAMILIAR_PICTURE}; its outputs mean nothing."
    return "note", f"{name} scan: cannot judge. {reason}"


def name_hospital(number: int) -> str:
    """Name a hospital; all are simulated."""
    return f"Hospital {number} (simulated)"


def describe_hospital(number: int | None) -> str:
    """Describe the hospital whose system read, as the end of a sentence; empty without one."""
    return "" if number is None else f"; read as hospital {number} (simulated)"


def describe_hospitals(chosen: int | None, *, is_attacked: bool) -> str:
    """Describe the parts that all hospitals share, and each hospital's own."""
    made = f" The attacked scan is the one made at hospital {chosen}." if is_attacked else ""
    return (
        "Simulated: the experts are shared; attention, calibration and threshold are each "
        f"hospital's own. “!”: that hospital suspects an attack.{made}"
    )


def format_eps(norm: str, value: float) -> str:
    """Format the size of an attack; in L-inf also in grey levels."""
    return f"{value:.4f} = {value * 255:.1f}/255" if norm == "linf" else f"{value:.2f}"


def describe_eps(norm: str, eps: float) -> str:
    """Describe the size of an attack in grey levels."""
    if eps == 0:
        return "ε = 0: the control, no pixel may change."
    if norm == "linf":
        levels = eps * 255
        whole = int(levels + 1e-3)
        kept = f"in an 8-bit file at most {whole} whole level{'s' * (whole != 1)} per pixel"
        return f"ε = {eps:.3f} = {levels:.1f}/255: {kept}."
    return f"ε = {eps:.1f} over all 224 x 224 pixels: {eps / 224 * 255:.1f}/255 root mean square."


def describe_attack(settings: AttackSettings, changed: float, largest: int, length: float) -> str:
    """Describe the attack's change: share of pixels, largest change, L2 length."""
    kind = "FGSM" if settings.kind == "fgsm" else f"PGD, {settings.steps} steps"
    if changed == 0:
        return f"{kind}: after rounding to 8 bits no pixel differs. This is the control."
    return (
        f"{kind} against {AIMS[settings.aim]}: {changed * 100:.0f} % of pixels changed, "
        f"at most {largest}/255, L2 length {length:.2f}."
    )


def describe_change(largest: int, flagged: bool) -> str:
    """Describe the largest change of a pixel, in levels of 255, and whether it was flagged."""
    if largest == 0:
        return "The attack changed no pixel."
    found = "flagged" if flagged else "missed"
    return (
        f"The attack changed no pixel by more than {largest} of 255 levels. "
        f"The detector {found} it."
    )


def describe_attack_outcome(clean: str, attacked: str, truth: str, aim: str) -> tuple[str, str]:
    """Describe the effect on the undefended output: tone ('good', 'bad', 'note') and a sentence.

    An attack on another target may transfer to the undefended classifier.
    """
    if truth not in ("unknown", clean):
        return (
            "bad",
            f"Without defence: wrong before any attack (“{clean}”), “{attacked}” after it.",
        )
    if aim != "plain":
        if attacked == clean:
            return "note", f"Made for {MADE_FOR[aim]}, it leaves “{attacked}” without defence."
        return "bad", f"Made for {MADE_FOR[aim]}, it transfers: without defence “{attacked}”."
    if attacked == clean:
        return "good", f"The attack failed: the undefended classifier still says “{attacked}”."
    return "bad", f"The attack succeeded: without defence “{clean}” became “{attacked}”."


def describe_defence_outcome(clean: str, attacked: str, truth: str, aim: str) -> tuple[str, str]:
    """Describe the effect of the attack on the defended output: tone and one sentence."""
    if truth not in ("unknown", clean):
        return "bad", f"With defence: wrong before any attack (“{clean}”), “{attacked}” after it."
    made = f"an attack made for {MADE_FOR[aim]}"
    if attacked == clean:
        return "good", f"The defence held against {made}: it still says “{attacked}”."
    return "bad", f"The defence failed under {made}: “{clean}” became “{attacked}”."


def describe_clean_outcome(undefended: str, defended: str, truth: str) -> tuple[str, str]:
    """Describe the effect of the defence on the clean scan: tone and one sentence."""
    if undefended == defended:
        if truth not in ("unknown", defended):
            return "bad", "Clean scan: both outputs are wrong."
        return "good", f"Clean scan: the defence does no harm, both outputs say “{defended}”."
    if truth == "unknown":
        return (
            "note",
            f"Clean scan: the outputs disagree, “{undefended}” without, “{defended}” with defence.",
        )
    if defended == truth:
        return "good", "Clean scan: right with defence, wrong without it."
    return "bad", f"Clean scan: the defence does harm, “{undefended}” became “{defended}”."


def describe_detection(is_attacked: bool, flagged: bool) -> tuple[str, str]:
    """Compare the detector's output with the truth: tone and words."""
    if is_attacked:
        return ("good", "attack found") if flagged else ("bad", "attack missed")
    return ("bad", "false alarm") if flagged else ("good", "correct")


def describe_depth(t_star: int) -> str:
    """Describe the depth of a purification."""
    return f"purified at t* = {t_star}" if t_star else "not purified"


def format_time_left(seconds: float) -> str:
    """Return a duration in words, rounded up: it is an estimate."""
    if seconds < 60:
        return f"About {max(math.ceil(seconds / 5) * 5, 5)} s left."
    return f"About {math.ceil(seconds / 60)} min left."
