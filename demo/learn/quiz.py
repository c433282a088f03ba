"""Which of the two was attacked? Rounds of a quiz that shows why eyes do not help."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.scan import from_uint8, to_uint8
from core.steganalysis import blur
from demo.analysis.attack import AttackSettings, trajectory
from demo.phantom import phantom
from demo.rendering import images, wording

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

NAMES = ("A", "B")
MAX_LEVELS = 4  # of 255, that the attacker may change a pixel by
START = "Press “New pair”: a scan is drawn that nobody has seen before, and attacked."


@dataclass(frozen=True)
class Round:
    """The same synthetic scan twice, once attacked; pairs are A, then B."""

    pictures: tuple[Tensor, Tensor]  # (1, H, W) in [0, 1]
    attacked: int  # 0 or 1
    scores: tuple[float, float]  # the detector's
    flagged: tuple[bool, bool]
    outputs: tuple[float, float]  # tumour probability of the plain classifier

    @property
    def detectors_choice(self) -> int:
        """Which one scores higher."""
        return int(self.scores[1] > self.scores[0])


@dataclass(frozen=True)
class Tally:
    """Rounds answered, and how many of them the visitor and the detector got right."""

    rounds: int = 0
    visitor: int = 0
    detector: int = 0

    def add(self, dealt: Round, guess: int) -> Tally:
        """After one more round."""
        return Tally(
            self.rounds + 1,
            self.visitor + (guess == dealt.attacked),
            self.detector + (dealt.detectors_choice == dealt.attacked),
        )

    def describe(self) -> str:
        """How it stands, beside what guessing finds."""
        return (
            f"You found {self.visitor} of {self.rounds}; who guesses finds {self.rounds / 2:g} "
            f"on average; the detector's higher score found {self.detector}."
        )


def draw_round(system: MedFedPure, seed: int) -> Round:
    """Draws a scan, attacks it as little as turns it, and asks the detector about both.

    The drawing is smoothed by a 3 x 3 mean: the detector takes any fine grain for an attack.
    """
    scan = blur(phantom(seed, tumour=seed % 2 == 0)[None])[0]
    scan = from_uint8(to_uint8(scan))
    both = (scan, _attacked(system, scan, seed))
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


def _attacked(system: MedFedPure, scan: Tensor, seed: int) -> Tensor:
    """The scan after PGD on the plain classifier, by the fewest whole levels that turn it."""
    with torch.no_grad():
        label = int(system.plain_logits(scan[None].to(system.device)).argmax())
    x_adv = scan
    for levels in range(1, MAX_LEVELS + 1):
        eps = levels / 255
        settings = AttackSettings(eps=eps, alpha=eps / 2, truth=wording.CLASSES[label], seed=seed)
        *_, last = trajectory(system, scan, settings)
        x_adv = last.x_adv[0].cpu()
        if int(last.probabilities.argmax()) != label:
            break
    return x_adv


def render_question(dealt: Round) -> str:
    """The two pictures and nothing else."""
    return _pair(dealt, ("", ""))


def render_answer(dealt: Round, guess: int, tally: Tally) -> str:
    """Right or wrong, what the attack did, and what the detector says; `tally` counts this round.

    Raises:
        ValueError: the guess is neither 0 nor 1.
    """
    if guess not in (0, 1):
        raise ValueError(f"the guess must be 0 or 1, got {guess}")
    right = guess == dealt.attacked
    notes = tuple(
        f"{'attacked' if i == dealt.attacked else 'as drawn'}; classifier: "
        f"{wording.label(p)}; detector: {'attack suspected' if f else 'not suspected'} ({s:.1f})"
        for i, (p, f, s) in enumerate(zip(dealt.outputs, dealt.flagged, dealt.scores, strict=True))
    )
    clean, attacked = dealt.pictures[1 - dealt.attacked], dealt.pictures[dealt.attacked]
    url = images.change_url(clean, attacked, MAX_LEVELS)
    largest = round(float((attacked - clean).abs().max()) * 255)
    change = (
        f'<figure><div class="mf-pic"><img src="{url}" alt="The attack alone, amplified"></div>'
        "<figcaption>the difference, strongly amplified"
        f"<small>at most {largest} of 255 levels a pixel</small></figcaption></figure>"
    )
    verdict = f"{'Right' if right else 'Wrong'}: {NAMES[dealt.attacked]} was attacked."
    tone = "mf-good" if right else "mf-bad"
    return (
        f'<p class="mf-say"><b class="{tone}">{verdict}</b> {escape(tally.describe())}</p>'
        f"{_pair(dealt, (notes[0], notes[1]), change)}"
    )


def _pair(dealt: Round, notes: tuple[str, str], more: str = "") -> str:
    shown = "".join(
        f'<figure><div class="mf-pic"><img src="{images.scan_url(scan)}" alt="Scan {name}"></div>'
        f"<figcaption>{name}<small>{escape(note)}</small></figcaption></figure>"
        for name, scan, note in zip(NAMES, dealt.pictures, notes, strict=True)
    )
    return f'<div class="mf-strip mf-quiz">{shown}{more}</div>'
