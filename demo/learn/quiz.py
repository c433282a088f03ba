"""Quiz: find the adversarial example of a pair, by eye and by detector."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.scan import from_uint8, to_uint8
from core.steganalysis import blur
from demo.analysis.attack import AttackSettings, iterate_attack
from demo.phantom import draw_phantom
from demo.rendering import images, wording

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

NAMES = ("A", "B")
MAX_LEVELS = 4  # largest eps, in levels of 255
START_MESSAGE = "Press “New pair”: a new synthetic scan is drawn, and a copy of it is attacked."


@dataclass(frozen=True)
class Round:
    """A synthetic scan and its adversarial example; tuples hold A, then B."""

    pictures: tuple[Tensor, Tensor]  # (1, H, W) in [0, 1]
    attacked: int  # index of the adversarial example, 0 or 1
    scores: tuple[float, float]  # the detector's
    flagged: tuple[bool, bool]
    outputs: tuple[float, float]  # tumour probability of the plain classifier

    @property
    def detectors_choice(self) -> int:
        """Index of the scan with the higher detector score."""
        return int(self.scores[1] > self.scores[0])


@dataclass(frozen=True)
class Tally:
    """Number of rounds, and of right answers by visitor and detector."""

    rounds: int = 0
    visitor: int = 0
    detector: int = 0

    def add(self, pair: Round, guess: int) -> Tally:
        """Return the tally after one more round."""
        return Tally(
            self.rounds + 1,
            self.visitor + (guess == pair.attacked),
            self.detector + (pair.detectors_choice == pair.attacked),
        )

    def describe(self) -> str:
        """Compare visitor, chance and detector in one sentence."""
        return (
            f"You found {self.visitor} of {self.rounds}; guessing finds {self.rounds / 2:g} on "
            f"average; the detector's higher score found {self.detector}."
        )


def draw_round(system: MedFedPure, seed: int) -> Round:
    """Draw a scan, attack it with the smallest eps that flips the class, and read both.

    The drawing is smoothed by a 3 x 3 mean, because fine grain raises the detector's score.
    """
    scan = blur(draw_phantom(seed, tumour=seed % 2 == 0)[None])[0]
    scan = from_uint8(to_uint8(scan))
    both = (scan, _attack(system, scan, seed))
    attacked = int(torch.randint(2, (), generator=torch.Generator().manual_seed(seed)))
    a, b = both if attacked else both[::-1]
    first, second = system.read_batch(torch.stack([a, b]), [0, 0])
    return Round(
        (a, b),
        attacked,
        (first.score, second.score),
        (first.flagged, second.flagged),
        (first.tumour_probability_undefended, second.tumour_probability_undefended),
    )


def _attack(system: MedFedPure, scan: Tensor, seed: int) -> Tensor:
    """Run PGD on the plain classifier with the fewest whole levels that flip its class."""
    with torch.no_grad():
        label = int(system.plain_logits(scan[None].to(system.device)).argmax())
    x_adv = scan
    for levels in range(1, MAX_LEVELS + 1):
        eps = levels / 255
        settings = AttackSettings(eps=eps, alpha=eps / 2, truth=wording.CLASSES[label], seed=seed)
        *_, last = iterate_attack(system, scan, settings)
        x_adv = last.x_adv[0].cpu()
        if int(last.probabilities.argmax()) != label:
            break
    return x_adv


def render_question(pair: Round) -> str:
    """Render the two pictures without notes."""
    return _render_pair(pair, ("", ""))


def render_answer(pair: Round, guess: int, tally: Tally) -> str:
    """Render the verdict, the perturbation and the detector's scores; `tally` has this round.

    Raises:
        ValueError: the guess is neither 0 nor 1.
    """
    if guess not in (0, 1):
        raise ValueError(f"the guess must be 0 or 1, got {guess}")
    right = guess == pair.attacked
    notes = tuple(
        f"{'attacked' if i == pair.attacked else 'as drawn'}; classifier: "
        f"{wording.name_class(p)}; detector: {'' if f else 'no '}attack suspected ({s:.1f})"
        for i, (p, f, s) in enumerate(zip(pair.outputs, pair.flagged, pair.scores, strict=True))
    )
    clean, attacked = pair.pictures[1 - pair.attacked], pair.pictures[pair.attacked]
    url = images.encode_change(clean, attacked, MAX_LEVELS)
    largest = round(float((attacked - clean).abs().max()) * 255)
    change = (
        f'<figure><div class="mf-pic"><img src="{url}" alt="The perturbation, amplified"></div>'
        "<figcaption>the perturbation, strongly amplified"
        f"<small>at most {largest} of 255 levels a pixel</small></figcaption></figure>"
    )
    verdict = f"{'Right' if right else 'Wrong'}: {NAMES[pair.attacked]} was attacked."
    tone = "mf-good" if right else "mf-bad"
    return (
        f'<p class="mf-say"><b class="{tone}">{verdict}</b> {escape(tally.describe())}</p>'
        f"{_render_pair(pair, (notes[0], notes[1]), change)}"
    )


def _render_pair(pair: Round, notes: tuple[str, str], more: str = "") -> str:
    urls = [images.encode_scan(scan) for scan in pair.pictures]
    shown = "".join(
        f'<figure><div class="mf-pic"><img src="{url}" alt="Scan {name}"></div>'
        f"<figcaption>{name}<small>{escape(note)}</small></figcaption></figure>"
        for name, url, note in zip(NAMES, urls, notes, strict=True)
    )
    return f'<div class="mf-strip mf-quiz">{shown}{more}</div>'
