"""Non-brain phantoms: organs, limbs, a calibration phantom, noise.

They share no code or shapes with `train/data/outliers.py`, which the head is trained on: they are
a test that training has not seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from core.scan import SIZE

MIDDLE = SIZE / 2


class Pen:
    """Draws grey shapes around the middle of a black picture."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.image = Image.new("L", (SIZE, SIZE), int(rng.integers(0, 12)))
        self.draw = ImageDraw.Draw(self.image)
        self.x, self.y = (MIDDLE + rng.uniform(-6, 6) for _ in range(2))

    def between(self, low: float, high: float) -> float:
        """Draws a number from low to high."""
        return float(self.rng.uniform(low, high))

    def oval(self, x: float, y: float, a: float, b: float, level: float) -> None:
        """Draws an ellipse at (x, y) from the middle, with half axes a and b."""
        x, y = self.x + x, self.y + y
        self.draw.ellipse([x - a, y - b, x + a, y + b], fill=int(level))

    def bar(self, x: float, y: float, a: float, b: float, level: float, radius: float = 0) -> None:
        """Draws a rounded rectangle, measured as an oval is."""
        x, y = self.x + x, self.y + y
        self.draw.rounded_rectangle([x - a, y - b, x + a, y + b], radius, fill=int(level))


def _chest(p: Pen) -> None:
    p.oval(0, 0, p.between(90, 108), p.between(60, 80), p.between(90, 140))
    for side in (-1, 1):
        p.oval(side * p.between(38, 48), 0, p.between(24, 34), p.between(38, 52), p.between(8, 30))
    p.oval(p.between(-5, 15), p.between(5, 15), p.between(18, 26), 22, p.between(150, 200))
    p.oval(0, p.between(45, 55), 10, 10, p.between(190, 240))


def _abdomen(p: Pen) -> None:
    p.oval(0, 0, p.between(90, 108), p.between(62, 80), p.between(70, 110))
    p.oval(-p.between(30, 45), -p.between(5, 20), p.between(30, 42), 31, p.between(120, 160))
    for side in (-1, 1):
        p.oval(side * p.between(40, 50), p.between(18, 28), 14, 19, p.between(150, 200))
    p.oval(0, p.between(30, 42), 12, 12, p.between(190, 230))
    p.oval(p.between(25, 40), -p.between(18, 28), 17, 13, p.between(60, 220))


def _knee(p: Pen) -> None:
    p.bar(0, 0, p.between(45, 60), SIZE, p.between(60, 110))
    bone = p.between(150, 220)
    p.bar(0, -70, p.between(25, 32), 62, bone, 20)
    p.bar(0, 70, p.between(25, 32), 64, bone, 16)
    p.oval(-p.between(45, 52), -p.between(20, 35), 10, 20, p.between(150, 210))


def _hand(p: Pen) -> None:
    p.oval(0, 50, 46, 44, p.between(90, 140))
    for finger in range(5):
        top = p.between(60, 90)
        p.bar(-41 + 22 * finger, (40 - top) / 2, 7, (40 + top) / 2, p.between(100, 160), 7)


def _spine(p: Pen) -> None:
    p.bar(0, 0, 70, SIZE, p.between(40, 80))
    for i in range(8):
        p.bar(-2 + 8 * np.sin(i / 2), 28 * i - 98, 20, 10, p.between(140, 200), 4)
    p.bar(35, 0, 5, SIZE, p.between(180, 230))


def _workshop(p: Pen) -> None:
    p.oval(0, 0, p.between(80, 100), p.between(80, 100), p.between(120, 180))
    count = int(p.rng.integers(5, 12))
    for angle in np.arange(count) * 2 * np.pi / count:
        size = p.between(4, 14)
        p.oval(50 * np.cos(angle), 50 * np.sin(angle), size, size, p.between(0, 250))


def _legs(p: Pen) -> None:
    for side in (-1, 1):
        at = side * p.between(48, 56)
        p.oval(at, 0, p.between(38, 46), p.between(44, 56), p.between(80, 130))
        p.oval(at, 0, p.between(10, 14), p.between(10, 14), p.between(170, 240))


def _breast(p: Pen) -> None:
    box = [p.x - 110, p.y - 80, p.x + 60, p.y + 80]
    p.draw.pieslice(box, -90, 90, fill=int(p.between(80, 140)))
    for _ in range(5):
        p.oval(p.between(-20, 20), p.between(-30, 30), p.between(6, 16), 10, p.between(140, 240))


def _heart(p: Pen) -> None:
    p.oval(0, 0, p.between(95, 105), p.between(75, 90), p.between(50, 90))
    p.oval(-10, 0, p.between(34, 44), p.between(34, 44), p.between(70, 110))
    p.oval(-10, 0, p.between(20, 26), p.between(20, 26), p.between(180, 240))
    p.oval(-55, 0, p.between(16, 24), p.between(26, 34), p.between(160, 220))
    p.oval(62, -10, p.between(20, 28), p.between(36, 48), p.between(5, 25))


ORGANS: dict[str, Callable[[Pen], None]] = {
    "chest": _chest, "abdomen": _abdomen, "knee": _knee, "hand": _hand, "spine": _spine,
    "workshop phantom": _workshop, "legs": _legs, "breast": _breast, "heart": _heart,
}  # fmt: skip
KINDS = (*ORGANS, "noise")


def phantom_of(seed: int) -> np.ndarray:
    """Draws phantom number `seed`, (224, 224) uint8; the kinds of KINDS in turn."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    if kind == "noise":
        return _noise(rng)
    pen = Pen(rng)
    ORGANS[kind](pen)
    turned = pen.image.rotate(pen.between(-12, 12))
    soft = turned.filter(ImageFilter.GaussianBlur(pen.between(0.6, 2.2)))
    x = np.asarray(soft, dtype=float) * (1 + np.linspace(-0.08, 0.08, SIZE) * pen.between(-1, 1))
    x += rng.standard_normal((SIZE, SIZE)) * pen.between(1, 8) * (x > 14)
    return np.clip(x, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Draws white noise, blurred noise, a chequered board, or a noisy ramp."""
    noise, axis = rng.standard_normal((SIZE, SIZE)), np.arange(SIZE)
    kind = int(rng.integers(4))
    if kind == 1:
        grey = Image.fromarray(np.clip(noise * 40 + 128, 0, 255).astype(np.uint8))
        soft = grey.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 8))))
        noise = np.asarray(soft, dtype=float) - 128
        noise /= noise.std() + 1e-9
    elif kind == 2:
        wave = np.sin(axis / rng.uniform(2, 20))
        noise = np.sign(np.outer(wave, wave))
    elif kind == 3:
        ramp = np.linspace(-2, 2, SIZE)[:, None] * rng.uniform(-1, 1)
        noise = ramp + 0.2 * noise
    return np.clip(noise * 40 + 128, 0, 255).astype(np.uint8)
