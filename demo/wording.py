"""Every sentence of the page that depends on a result, and the few that must never change."""

from __future__ import annotations

from demo.attacking import AttackSettings

NOTICE = (
    "Research and teaching only - not for clinical use. On a public server upload no patient data."
)
CLASSES = ("no tumour", "tumour")
ERROR_CAPTION = "Shows what the autoencoder could not predict, not disease."
AIMS = {
    "plain": "the plain classifier",
    "mixture": "the trained mixture, without detector and purifier",
    "defence": "the whole defence (the attacker knows it)",
}
CLEARED = "Cleared: the scan, the attacked scan and all results are gone; nothing was kept on disk."


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


def eps_note(norm: str, eps: float) -> str:
    """What an attack's size means in grey levels."""
    if eps == 0:
        return "ε = 0: the control, no pixel may change."
    if norm == "linf":
        levels = eps * 255
        whole = int(levels + 1e-3)
        kept = f"in an 8-bit file at most {whole} whole level{'s' * (whole != 1)} per pixel"
        return f"ε = {eps:.3f} = {levels:.1f}/255: {kept}."
    return f"ε = {eps:.1f} over all 224 × 224 pixels: {eps / 224 * 255:.1f}/255 root mean square."


def attack_line(settings: AttackSettings, changed: float, largest: int, length: float) -> str:
    """What the attack did to the file: share of pixels changed, largest change in levels, L2 length."""
    kind = "FGSM" if settings.kind == "fgsm" else f"PGD, {settings.steps} steps"
    if changed == 0:
        return f"{kind}: after rounding to 8 bits no pixel differs. This is the control."
    return (
        f"{kind} against {AIMS[settings.aim]}: {changed * 100:.0f} % of pixels changed, "
        f"at most {largest}/255, L2 length {length:.2f}."
    )


def outcome(system: str, clean: str, attacked: str, truth: str) -> tuple[str, str]:
    """Verdict on one system under attack: its tone ('good', 'bad' or 'note') and one sentence.

    Args:
        system: what to call it at the start of a sentence.
        clean: its output on the clean scan.
        attacked: its output on the attacked scan.
        truth: 'unknown', 'no tumour' or 'tumour'.
    """
    if truth != "unknown" and clean != truth:
        if attacked == clean:
            return "bad", f"{system} is wrong on the clean scan already, and stays at “{attacked}”."
        return "note", f"{system} is wrong on the clean scan; attacked, it says “{attacked}”."
    if attacked != clean:
        return "bad", f"{system} was turned by the attack: “{clean}” became “{attacked}”."
    return "good", f"{system} withstood the attack: it still says “{attacked}”."


def harm(undefended: str, defended: str, truth: str) -> tuple[str, str]:
    """Does the defence harm the clean scan? Tone and one sentence."""
    if undefended == defended:
        if truth not in ("unknown", defended):
            return "bad", "Clean scan: both outputs are wrong."
        return "good", f"Clean scan: the defence does no harm, both outputs say “{defended}”."
    if truth == "unknown":
        return "note", f"Clean scan: the outputs disagree, “{undefended}” without defence, “{defended}” with it."
    if defended == truth:
        return "good", "Clean scan: right with defence, wrong without it."
    return "bad", f"Clean scan: the defence does harm, “{undefended}” became “{defended}”."


def detection(is_attacked: bool, flagged: bool) -> tuple[str, str]:
    """Was the detector right? Tone and words."""
    if is_attacked:
        return ("good", "attack found") if flagged else ("bad", "attack missed")
    return ("bad", "false alarm") if flagged else ("good", "not flagged")
