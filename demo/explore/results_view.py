"""Result area as HTML: pure functions from an analysis to a string, everything escaped."""

from __future__ import annotations

from html import escape

from core.diagnosis import Diagnosis
from core.interval import Certificate
from core.scan import to_png
from demo.analysis.analysis import Analysis
from demo.rendering import explanation, stability, wording
from demo.rendering.flag_reasons import render_flag_reasons
from demo.rendering.html import render_link, render_meter
from demo.rendering.shares import render_shares
from demo.rendering.verdicts import collect_verdicts, name_outputs
from demo.report import document

EXPERTS = "Experts: shares that add up to the output"
# title of each card, and what it will hold
EMPTY_CARDS = (
    ("Model output", "Both outputs, side by side."),
    (EXPERTS, "What each expert adds to the output, for or against a tumour."),
    ("Attack detector", "Its score, and its reasons."),
)
UNJUDGED = f'<td data-says="{wording.NO_JUDGEMENT}"><strong>{wording.NO_JUDGEMENT}</strong></td>'


def render(analysis: Analysis) -> str:
    """Render outputs, mixture and detector; the viewer shows the pictures."""
    cards = _render_outputs(analysis) + _render_mixture(analysis) + _render_detector(analysis)
    stale = f'<p class="mf-stale" role="status">{wording.STALE_MESSAGE}</p>'
    return f'{stale}<div class="mf-cards">{cards}</div>'


def render_empty(sentence: str) -> str:
    """Render the result area without an analysis: a sentence, and what each card will hold."""
    cards = "".join(
        f'<section class="mf-card mf-empty"><h3>{title}</h3><p>{words}</p></section>'
        for title, words in EMPTY_CARDS
    )
    return f'<p class="mf-hint">{escape(sentence)}</p><div class="mf-cards">{cards}</div>'


def render_story(analysis: Analysis) -> str:
    """Render the effects of attack and defence, and doubts about the file; "" before a reading."""
    said = collect_verdicts(analysis)
    items = "".join(f'<li class="mf-{tone}">{escape(words)}</li>' for tone, words in said)
    return f'<ul class="mf-verdicts" aria-label="Effects">{items}</ul>' if items else ""


def render_explanation(analysis: Analysis) -> str:
    """Render the explanation under the pictures; empty before the first reading."""
    if analysis.clean_scores is None:
        return ""
    scores = [(f"{name} scan", d) for name, d in analysis.readings]
    return (
        '<section class="mf-decision" aria-label="Explanation of the output">'
        f"{stability.render_flips(analysis.readings)}"
        '<div class="mf-card"><h3>The score among scores of clean scans</h3>'
        f"{explanation.render_scores(scores, analysis.clean_scores)}</div></section>"
    )


def _render_outputs(a: Analysis) -> str:
    """Render the outputs, clean and attacked, without and with defence, and their effects."""
    rows = _render_row("Clean scan", a.clean, a.clean, a.certificates.get("clean"))
    rows += _render_row("Attacked scan", a.attacked, a.clean, a.certificates.get("attacked"))
    at = wording.describe_hospital(a.hospital)
    is_purified = any(d.policy != "picture" for _, d in a.readings)
    reader = "detector, purifier, mixture" if is_purified else "mixture trained on attacks"
    attack = wording.describe_attack(a.settings, *a.change) if a.attacked else ""
    meaning = stability.PROOF_MEANING if a.certificates else a.no_certificates
    return (
        '<section class="mf-card mf-outputs" aria-label="Model output">'
        f"<h3>Model output{at}</h3><table><thead><tr>"
        "<td><small>bars: probability of tumour</small></td>"
        '<th scope="col">Without defence<small>plain classifier</small></th>'
        f'<th scope="col">With defence<small>{reader}</small></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="mf-note">{escape(attack)}</p>'
        f'<p class="mf-note">{escape(stability.MEANING)}</p>'
        f'<p class="mf-note">{escape(meaning)}</p>{_render_downloads(a)}</section>'
    )


def _render_row(
    name: str, d: Diagnosis | None, clean: Diagnosis | None, certificate: Certificate | None
) -> str:
    cells = "<td>&ndash;</td><td>&ndash;</td>"
    if d is not None:
        was = name_outputs(clean or d)
        cells = _render_cell(d.tumour_probability_undefended, was[0])
        small = _render_trust(d, certificate)
        cells += _render_cell(d.tumour_probability, was[1], small) if d.can_judge else UNJUDGED
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _render_trust(d: Diagnosis, certificate: Certificate | None) -> str:
    """Render how far an answer is stable, and how far it is proven."""
    tone = " mf-bad" if d.stable is False else ""
    words = escape(stability.describe(d))
    return (
        f'<small class="mf-stability{tone}">{words}</small>{stability.render_proof(d, certificate)}'
    )


def _render_cell(tumour_probability: float, was: str, small: str = "") -> str:
    says = wording.name_class(tumour_probability)
    turned = was in wording.CLASSES and says != was
    mark = '<em class="mf-turned">flipped</em>' if turned else ""
    bar = render_meter(tumour_probability, "tumour probability", kind="mf-half")
    share = f"<span>{wording.format_confidence(tumour_probability)}</span>"
    return f'<td data-says="{says}"><strong>{says}</strong> {share} {mark}{bar}{small}</td>'


def _render_downloads(a: Analysis) -> str:
    """Render links that hold their file, so that nothing is stored on the server."""
    if a.clean is None or (a.attacked is None) != (a.attacked_scan is None):
        return ""  # still running
    links = []
    if a.attacked_scan is not None:
        png = to_png(a.attacked_scan)
        links.append(
            render_link("attacked-scan.png", "image/png", png, "Attacked scan (lossless PNG)")
        )
    name, data = f"{document.NAME}.json", document.to_json(a)
    links.append(render_link(name, "application/json", data, "All figures, to repeat it (JSON)"))
    return f'<p class="mf-downloads">{"".join(links)}</p>'


def _render_detector(a: Analysis) -> str:
    rows, title = "", "Attack detector"
    for name, d in a.readings:
        title = f"Attack detector, score “{escape(d.score_name)}”"
        is_attacked = name == "attacked" and a.change[1] > 0
        tone, words = wording.describe_detection(is_attacked, d.flagged)
        if name == "attacked" and not is_attacked:
            words = f"unchanged scan, {words}"
        rows += (
            f"<dt>{name.capitalize()} scan</dt>"
            f"<dd><strong>{'attack suspected' if d.flagged else 'not suspected'}</strong> "
            f'<em class="mf-{tone}">{words}</em>'
            f"{render_meter(d.confidence, 'rank of the score')}<small>bar: scores above about "
            f"{wording.format_percent(d.confidence)} of clean scans</small></dd>"
        )
    body = "&ndash;"
    if rows:
        reasons = f"<h3>Why was it flagged, or not?</h3>{render_flag_reasons(a.readings[::-1])}"
        body = f"<dl>{rows}</dl>{reasons}{_render_figures(a)}"
    return f'<section class="mf-card"><h3>{title}</h3>{body}</section>'


def _render_figures(a: Analysis) -> str:
    """Render the detector's figures and all times, folded."""
    lines = [
        f"{name} scan: score {d.score:.3g}, threshold τ {d.tau:.3g}; scores above about "
        f"{wording.format_percent(d.confidence)} of clean scans; "
        f"{wording.describe_depth(d.t_star)}; "
        f"novelty {d.novelty:.1f}, judged up to {d.novelty_limit:.1f}; "
        + ", ".join(f"{k} {v:.0f} ms" for k, v in d.timings_ms.items())
        for name, d in a.readings
    ]
    if a.attack_ms:
        lines.append(f"attack: {a.attack_ms:.0f} ms")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        "<details><summary>Figures and times</summary>"
        f'<ul class="mf-note mf-times">{items}</ul></details>'
    )


def _render_mixture(a: Analysis) -> str:
    """Render the experts' shares of the log-odds, and, folded, their weights and votes."""
    named = [(f"{name.capitalize()} scan", d) for name, d in a.readings]
    body = "&ndash;"
    if named:
        votes = explanation.render_votes(named, a.sides)
        votes += f'<p class="mf-note">{escape(_describe_other_answers(a))}</p>'
        body = (
            f"{render_shares(named, a.sides)}<details><summary>Weights and votes</summary>"
            f"{votes}</details>"
        )
    return f'<section class="mf-card"><h3>{EXPERTS}</h3>{body}</section>'


def _describe_other_answers(a: Analysis) -> str:
    """Describe the mixture's answers to the purified scans, or to the scans if those are read."""
    judged = [(name, d) for name, d in a.readings if d.can_judge and d.t_star]
    if not judged:
        return ""
    is_picture = judged[0][1].policy == "picture"
    shares = [
        (name, d.tumour_probability_purified if is_picture else d.tumour_probability_unpurified)
        for name, d in judged
    ]
    listed = ", ".join(f"{name} {wording.format_percent(share)}" for name, share in shares)
    return f"{'Read purified' if is_picture else 'Without purifier'}, tumour: {listed}."
