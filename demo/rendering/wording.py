"""Every sentence of the page that depends on a result, and the few that must never change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.analysis.attack import AttackSettings

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis

RESEARCH = "Research and teaching only - not for clinical use"
NOTICE = f"{RESEARCH}. On a public server upload no patient data."
PUBLIC_NOTICE = f"{RESEARCH}. This page is public: upload no patient data."
CLASSES = ("no tumour", "tumour")
ERROR_CAPTION = "Shows what the autoencoder could not predict, not disease."
AIMS = {
    "plain": "the plain classifier",
    "mixture": "the trained mixture, without detector and purifier",
    "defence": "the whole defence (the attacker knows it)",
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


def percent(share: float) -> str:
    """A probability as a whole percentage that never claims certainty."""
    if share < 0.01:
        return "< 1 %"
    if share > 0.99:
        return "> 99 %"
    return f"{share * 100:.0f} %"


def label(tumour_probability: float) -> str:
    """The class that a tumour probability puts first."""
    return CLASSES[int(tumour_probability >= 0.5)]


def confidence(tumour_probability: float) -> str:
    """The probability of the class that a tumour probability puts first, as a percentage."""
    return percent(max(tumour_probability, 1 - tumour_probability))


def defended(d: Diagnosis) -> str:
    """The defended output of a reading: a class, or that it cannot judge."""
    return label(d.tumour_probability) if d.can_judge else NO_JUDGEMENT


def cannot_judge(name: str) -> tuple[str, str]:
    """The refusal of an out-of-distribution scan: tone and one sentence."""
    name = name.capitalize()
    reason = f"The picture is {UNFAMILIAR_PICTURE}; its outputs mean nothing."
    return "note", f"{name} scan: cannot judge. {reason}"


def hospital(number: int) -> str:
    """A hospital's name; there is no real one behind it."""
    return f"Hospital {number} (simulated)"


def read_as(number: int | None) -> str:
    """The hospital whose system read, to be added to a sentence; empty without hospitals."""
    return "" if number is None else f"; read as hospital {number} (simulated)"


def hospitals_note(chosen: int | None, *, is_attacked: bool) -> str:
    """The parts that all hospitals share, and those that each has of its own."""
    made = f" The attacked scan is the one made at hospital {chosen}." if is_attacked else ""
    return (
        "Simulated: the experts are shared; attention, calibration and threshold are each "
        f"hospital's own. “!”: that hospital suspects an attack.{made}"
    )


def eps(norm: str, value: float) -> str:
    """An attack's size, also in grey levels where it bounds every pixel."""
    return f"{value:.4f} = {value * 255:.1f}/255" if norm == "linf" else f"{value:.2f}"


def eps_note(norm: str, eps: float) -> str:
    """The size of an attack in grey levels."""
    if eps == 0:
        return "ε = 0: the control, no pixel may change."
    if norm == "linf":
        levels = eps * 255
        whole = int(levels + 1e-3)
        kept = f"in an 8-bit file at most {whole} whole level{'s' * (whole != 1)} per pixel"
        return f"ε = {eps:.3f} = {levels:.1f}/255: {kept}."
    return f"ε = {eps:.1f} over all 224 x 224 pixels: {eps / 224 * 255:.1f}/255 root mean square."


def attack_line(settings: AttackSettings, changed: float, largest: int, length: float) -> str:
    """The attack's change to the file: share of pixels, largest change, L2 length."""
    kind = "FGSM" if settings.kind == "fgsm" else f"PGD, {settings.steps} steps"
    if changed == 0:
        return f"{kind}: after rounding to 8 bits no pixel differs. This is the control."
    return (
        f"{kind} against {AIMS[settings.aim]}: {changed * 100:.0f} % of pixels changed, "
        f"at most {largest}/255, L2 length {length:.2f}."
    )


def attack_outcome(clean: str, attacked: str, truth: str, aim: str) -> tuple[str, str]:
    """The attack's effect on the undefended output: tone ('good', 'bad', 'note') and a sentence.

    An attack with another aim was not made for the undefended classifier, and may carry over to it.
    """
    if truth not in ("unknown", clean):
        return (
            "bad",
            f"Without defence: wrong before any attack (“{clean}”), “{attacked}” after it.",
        )
    if aim != "plain":
        if attacked == clean:
            return "note", f"Made for {MADE_FOR[aim]}, it leaves “{attacked}” without defence."
        return "bad", f"Made for {MADE_FOR[aim]}, it carries over: without defence “{attacked}”."
    if attacked == clean:
        return "good", f"The attack failed: the undefended classifier still says “{attacked}”."
    return "bad", f"The attack succeeded: without defence “{clean}” became “{attacked}”."


def defence_outcome(clean: str, attacked: str, truth: str, aim: str) -> tuple[str, str]:
    """The attack's effect on the defended output: tone and one sentence."""
    if truth not in ("unknown", clean):
        return "bad", f"With defence: wrong before any attack (“{clean}”), “{attacked}” after it."
    made = f"an attack made for {MADE_FOR[aim]}"
    if attacked == clean:
        return "good", f"The defence held against {made}: it still says “{attacked}”."
    return "bad", f"The defence failed under {made}: “{clean}” became “{attacked}”."


def harm(undefended: str, defended: str, truth: str) -> tuple[str, str]:
    """The defence's effect on the clean scan: tone and one sentence."""
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


def detection(is_attacked: bool, flagged: bool) -> tuple[str, str]:
    """The detector's verdict against the truth: tone and words."""
    if is_attacked:
        return ("good", "attack found") if flagged else ("bad", "attack missed")
    return ("bad", "false alarm") if flagged else ("good", "correct")
