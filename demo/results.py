"""The pictures and figures of one analysis as HTML: pure functions from what is known so far to a string."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from core.scan import to_png
from demo import figures, wording
from demo.attacking import AttackSettings

if TYPE_CHECKING:
    from core.pipeline import Diagnosis

BAR = figures.gradient_css(figures.cividis(np.linspace(0, 1, 17)))
CHANGE_BAR = figures.gradient_css(figures.diverging(np.linspace(-1, 1, 17)))
HIGH = round(figures.ERROR_TOP * 255)


@dataclass(frozen=True)
class Analysis:
    """What is known so far of one analysis; parts that are not ready are None."""

    scan: Tensor  # (1, 224, 224)
    settings: AttackSettings
    attacked_scan: Tensor | None = None  # (1, 224, 224); changes while the attack runs
    clean: Diagnosis | None = None
    attacked: Diagnosis | None = None
    attack_ms: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def change(self) -> tuple[float, int, float]:
        """Share of pixels that the attack changed, its largest change in levels, its L2 length."""
        if self.attacked_scan is None:
            return 0.0, 0, 0.0
        delta = (self.attacked_scan - self.scan) * 255
        share = float((delta.abs() > 0.5).float().mean())
        return share, round(float(delta.abs().max())), float(delta.norm()) / 255

    def report(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        changed, largest, length = self.change
        return {
            "notice": wording.NOTICE,
            "attack": {
                **self.settings.to_dict(),
                "changed_share": changed,
                "largest_change_levels": largest,
                "l2_length": length,
                "ms": self.attack_ms,
            },
            "clean": self.clean.to_dict() if self.clean else None,
            "attacked": self.attacked.to_dict() if self.attacked else None,
            "system": self.info,
        }


def render(analysis: Analysis) -> str:
    """The whole result area."""
    return (
        '<p class="mf-stale" role="status">A control has changed since: press Analyse to renew these results.</p>'
        f"{_panels(analysis)}"
        f'<div class="mf-cards">{_outputs(analysis)}{_detector(analysis)}{_mixture(analysis)}</div>'
    )


def empty(sentence: str) -> str:
    """The result area before the first analysis."""
    return f'<div class="mf-empty"><p>{escape(sentence)}</p></div>'


def _panels(a: Analysis) -> str:
    attacked = a.attacked_scan
    waiting = "no attack" if a.settings.kind == "none" else "waiting"
    change = figures.change_url(a.scan, attacked) if attacked is not None else ""
    readings = [(name, d) for name, d in (("attacked", a.attacked), ("clean", a.clean)) if d]
    errors = [
        (n, figures.error_url(d.error_map), f"Error map of the {n} scan") for n, d in readings
    ]
    purified = [(n, figures.scan_url(d.purified), f"The {n} scan, purified") for n, d in readings]
    toggle = ""
    if len(readings) == 2:
        toggle = (
            '<fieldset class="mf-toggle"><legend>Error map and purified scan of the</legend>'
            '<label><input type="radio" name="mf-of" value="attacked" checked> attacked scan</label>'
            '<label><input type="radio" name="mf-of" value="clean"> clean scan</label></fieldset>'
        )
    t_star = "; ".join(f"{n}: t* = {d.t_star}" for n, d in readings) or "noise added, then removed"
    return (
        f'<section class="mf-view" aria-label="Pictures">{toggle}<div class="mf-panels">'
        + _panel(
            "Original",
            [("", figures.scan_url(a.scan), "The clean scan")],
            "",
            "as read, 224 × 224 px",
        )
        + _panel(
            "Attacked",
            [("", figures.scan_url(attacked), "The attacked scan")] if attacked is not None else [],
            waiting,
            "the file both systems are given",
        )
        + _panel(
            "Attack alone",
            [("mf-exact", change, "Attacked minus original")] if change else [],
            waiting,
            "attacked − original, magnified",
            (CHANGE_BAR, f"−{figures.CHANGE_TOP}", "0", f"+{figures.CHANGE_TOP} levels"),
        )
        + _panel(
            "MAE reconstruction error",
            errors,
            "waiting",
            wording.ERROR_CAPTION,
            (BAR, "0", "", f"≥ {HIGH} levels"),
        )
        + _panel("Purified", purified, "waiting", t_star)
        + "</div></section>"
    )


def _panel(
    title: str,
    pictures: list[tuple[str, str, str]],
    waiting: str,
    caption: str,
    bar: tuple[str, str, str, str] | None = None,
) -> str:
    """One figure; `pictures` are (class, data URL, alternative text), the first one shown by default."""
    body = "".join(f'<img class="{c}" src="{url}" alt="{escape(alt)}">' for c, url, alt in pictures)
    body = body or f'<div class="mf-blank">{escape(waiting)}</div>'
    scale = ""
    if bar:
        low, middle, high = (escape(text) for text in bar[1:])
        scale = (
            f'<div class="mf-bar" style="background:{bar[0]}"></div>'
            f'<div class="mf-ticks"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
        )
    return (
        f'<figure class="mf-panel" data-panel="{escape(title)}"><h3>{escape(title)}</h3>{body}{scale}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _outputs(a: Analysis) -> str:
    """Final outputs, clean and attacked, without and with defence, and the verdicts in words."""
    rows = _row("Clean scan", a.clean, a.clean) + _row("Attacked scan", a.attacked, a.clean)
    verdicts = []
    if a.clean:
        before = _labels(a.clean)
        verdicts.append(wording.harm(*before, a.settings.truth))
        if a.attacked:
            after = _labels(a.attacked)
            verdicts.append(wording.attack_outcome(before[0], after[0], a.settings.truth))
            verdicts.append(wording.defence_outcome(before[1], after[1], a.settings.truth))
    said = "".join(f'<li class="mf-{tone}">{escape(text)}</li>' for tone, text in verdicts)
    aimed = (
        f"<p class='mf-note'>{escape(wording.attack_line(a.settings, *a.change))}</p>"
        if a.attacked
        else ""
    )
    return (
        '<section class="mf-card mf-outputs" aria-label="Final diagnosis"><h3>Final diagnosis (model output)</h3>'
        '<table><thead><tr><td></td><th scope="col">Without defence<small>plain classifier</small></th>'
        '<th scope="col">With defence<small>detector, purifier, mixture</small></th></tr></thead>'
        f'<tbody>{rows}</tbody></table><ul class="mf-verdicts">{said}</ul>{aimed}{_downloads(a)}</section>'
    )


def _labels(d: Diagnosis) -> tuple[str, str]:
    return wording.label(d.tumour_probability_undefended), wording.label(d.tumour_probability)


def _row(name: str, d: Diagnosis | None, clean: Diagnosis | None) -> str:
    if d is None:
        return f'<tr><th scope="row">{name}</th><td>–</td><td>–</td></tr>'
    was = _labels(clean) if clean else _labels(d)
    return (
        f'<tr><th scope="row">{name}</th>{_output(d.tumour_probability_undefended, was[0])}'
        f"{_output(d.tumour_probability, was[1])}</tr>"
    )


def _output(tumour_probability: float, was: str) -> str:
    says = wording.label(tumour_probability)
    sure = tumour_probability if says == "tumour" else 1 - tumour_probability
    turned = '<em class="mf-turned">turned</em>' if says != was else ""
    return (
        f'<td data-says="{says}"><strong>{says}</strong> {wording.percent(sure)} {turned}'
        f"{_meter(tumour_probability, 'tumour probability', 'mf-tumour')}</td>"
    )


def _meter(share: float, what: str, kind: str) -> str:
    """A bar from 0 to 1, with its value in words for screen readers."""
    return (
        f'<div class="mf-meter {kind}" role="img" aria-label="{escape(what)} {wording.percent(share)}">'
        f'<i style="width:{min(max(share, 0), 1) * 100:.1f}%"></i></div>'
    )


def _downloads(a: Analysis) -> str:
    """Links that hold their file: nothing is stored on the server."""
    links = []
    if a.attacked is not None and a.attacked_scan is not None:
        png = base64.b64encode(to_png(a.attacked_scan)).decode("ascii")
        links.append(
            ("attacked-scan.png", f"data:image/png;base64,{png}", "Attacked scan (lossless PNG)")
        )
    if a.clean is not None:
        text = json.dumps(a.report(), indent=2, default=str).encode()
        url = f"data:application/json;base64,{base64.b64encode(text).decode('ascii')}"
        links.append(("medfedpure-report.json", url, "All figures (JSON)"))
    made = "".join(f'<a download="{name}" href="{url}">{text}</a>' for name, url, text in links)
    return f'<p class="mf-downloads">{made}</p>' if made else ""


def _detector(a: Analysis) -> str:
    rows = ""
    for name, d, is_attacked in (
        ("Clean", a.clean, False),
        ("Attacked", a.attacked, bool(a.change[1])),
    ):
        if d is None:
            continue
        tone, words = wording.detection(is_attacked, d.flagged)
        if name == "Attacked" and not is_attacked:
            words = f"unchanged scan, {words}"
        rank = f"scores above {wording.percent(d.confidence)} of clean scans"
        rows += (
            f"<dt>{name}</dt><dd><strong>{'attack suspected' if d.flagged else 'not suspected'}</strong> "
            f'<em class="mf-{tone}">{words}</em>{_meter(d.confidence, "rank of the score", "mf-score")}'
            f"<small>score {d.score:.3g}, threshold τ {d.tau:.3g}; {rank}; purified at t* = {d.t_star}</small></dd>"
        )
    which = next((d.score_name for d in (a.attacked, a.clean) if d), "")
    name = f"Attack detector, score “{escape(which)}”" if which else "Attack detector"
    return f'<section class="mf-card"><h3>{name}</h3><dl>{rows or "–"}</dl>{_timings(a)}</section>'


def _timings(a: Analysis) -> str:
    parts = [(n, d.timings_ms) for n, d in (("clean", a.clean), ("attacked", a.attacked)) if d]
    lines = "".join(
        f"<li>{name}: " + ", ".join(f"{escape(k)} {v:.0f} ms" for k, v in timings.items()) + "</li>"
        for name, timings in parts
    )
    if a.attack_ms:
        lines += f"<li>attack: {a.attack_ms:.0f} ms</li>"
    return f'<ul class="mf-note mf-times" aria-label="Timings">{lines}</ul>' if lines else ""


def _mixture(a: Analysis) -> str:
    d = a.attacked or a.clean
    if d is None:
        body = "–"
    else:
        body = "".join(
            f'<div class="mf-expert"><b>E{k + 1}</b>{_meter(w, f"weight of expert {k + 1}", "mf-weight")}'
            f"<span>{w:.2f}</span><small>tumour {wording.percent(p)}</small></div>"
            for k, (w, p) in enumerate(
                zip(d.attention.tolist(), d.expert_probabilities.tolist(), strict=True)
            )
        )
        body += (
            f'<p class="mf-note">On the {"attacked" if a.attacked else "clean"} scan after purification. '
            f"The same mixture without purifier: tumour {wording.percent(d.tumour_probability_unpurified)}.</p>"
        )
    return f'<section class="mf-card"><h3>Expert attention weights</h3>{body}</section>'
