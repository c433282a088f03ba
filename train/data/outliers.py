"""Random pictures that are no brain MRI, on which the out-of-distribution head is trained.

Outlier exposure (Hendrycks et al. 2019) without another data set: dead leaves and spectra with the
statistics of photographs (Baradad et al. 2021), phantoms of body and limbs, and altered brain
scans.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from core.scan import SIZE

Picture = np.ndarray  # (SIZE, SIZE) float, about 0 to 255; clipped and rounded at the end


def draw_outlier(
    rng: np.random.Generator, scans: np.ndarray, kind: str | None = None
) -> np.ndarray:
    """Draw one picture, (224, 224) uint8.

    Args:
        rng: the only source of randomness.
        scans: brain scans (N, 224, 224) uint8, from which some kinds are made.
        kind: one of KINDS; by default any.
    """
    name = str(rng.choice(list(KINDS))) if kind is None else kind
    picture = KINDS[name](rng, scans)
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(1, 12), picture.shape)
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)


def _draw_leaves(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Draw overlapping shapes of many sizes, like objects in a photograph (dead leaves)."""
    image = Image.new("L", (SIZE, SIZE), _draw_level(rng))
    draw = ImageDraw.Draw(image)
    smallest, count = rng.uniform(3, 20), int(rng.integers(8, 400))
    for size in np.sort(smallest * rng.uniform(0.02, 1, count) ** -0.7)[::-1]:
        _draw_shape(rng, draw, rng.uniform(0, SIZE, 2), min(size, SIZE), _draw_level(rng))
    return _shade(rng, image)


def _draw_spectrum(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Draw noise with a random spectrum, from white to cloudy; some of it binary."""
    noise = _draw_clouds(rng, rng.uniform(0, 2.5))
    if rng.random() < 0.3:
        noise = np.sign(noise - rng.uniform(-1, 1))
    return rng.uniform(60, 180) + noise * rng.uniform(10, 90)


def _draw_waves(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Draw stripes, checks, rings or ramps."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - rng.uniform(0, 1, (2, 1, 1))
    angle, turns = rng.uniform(0, math.pi), math.exp(rng.uniform(-1, 4))
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle)
    phase = [along, np.hypot(x, y), along**2][int(rng.integers(3))]
    wave = np.sin(phase * turns * 2 * math.pi)
    if rng.random() < 0.4:
        wave = wave * np.sin((across - x * math.sin(angle)) * turns * 2 * math.pi)
    if rng.random() < 0.5:
        wave = np.sign(wave)
    return np.asarray(rng.uniform(40, 200) + wave * rng.uniform(15, 120))


def _draw_body(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Draw soft outlines on black with shapes inside: a trunk, an organ, a test phantom."""
    picture = np.full((SIZE, SIZE), rng.uniform(0, 12))
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        inside = _draw_outline(rng, rng.uniform(0.25, 0.5) * SIZE, rng.uniform(0.5, 1.0))
        picture[inside] = rng.uniform(30, 190) + 15 * _draw_clouds(rng, 2)[inside]
        if rng.random() < 0.4:
            rim = inside & ~_erode(inside, int(rng.integers(1, 7)))
            picture[rim] = rng.uniform(60, 250)
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(0, 14))):
            where = rng.uniform(0.2, 0.8, 2) * SIZE
            _draw_shape(rng, draw, where, rng.uniform(6, 70), _draw_level(rng))
        things = _shade(rng, image)
        picture = np.where(inside, things, picture)
    return picture


def _draw_limbs(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Draw long shapes side by side with cores: limbs, fingers, vertebrae, tubes."""
    image = Image.new("L", (SIZE, SIZE), int(rng.integers(0, 14)))
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(1, 7))
    pitch, gap = SIZE / count, rng.uniform(0.3, 0.95)
    levels = [_draw_level(rng) for _ in range(3)]
    for i in range(count):
        middle, half = (i + 0.5) * pitch, pitch * gap / 2
        top, bottom = rng.uniform(-0.3, 0.35) * SIZE, rng.uniform(0.6, 1.3) * SIZE
        draw.rounded_rectangle(
            [middle - half, top, middle + half, bottom], int(half * rng.uniform(0, 1)), levels[0]
        )
        core, parts = half * rng.uniform(0.2, 0.8), int(rng.choice([0, 1, 1, 5, 9]))
        for j in range(parts):
            start, end = top + (bottom - top) * np.array([j + 0.1, j + 0.9]) / parts
            draw.rounded_rectangle(
                [middle - core, start, middle + core, end], int(core * 0.5), levels[1]
            )
    turned = image.rotate(float(rng.uniform(0, 180)), resample=Image.Resampling.BILINEAR)
    return _shade(rng, turned)


def _shuffle_tiles(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Cut a scan into squares and permute them."""
    n = int(rng.choice([2, 4, 8]))
    side = SIZE // n
    tiles = _pick_scan(rng, scans).reshape(n, side, n, side).swapaxes(1, 2).reshape(-1, side, side)
    moved = tiles[rng.permutation(n * n)].reshape(n, n, side, side)
    return moved.swapaxes(1, 2).reshape(SIZE, SIZE)


def _enlarge_detail(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Enlarge a detail of a scan 2.5 to 6 times."""
    side = SIZE / rng.uniform(2.5, 6)
    left, top = SIZE / 2 + rng.uniform(-0.25, 0.25, 2) * SIZE - side / 2
    image = Image.fromarray(_pick_scan(rng, scans).astype(np.uint8))
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box), dtype=float)


def _tile_scans(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Tile small scans on one sheet, with some places empty."""
    n = int(rng.choice([2, 3, 4]))
    side, picture = SIZE // n, np.full((SIZE, SIZE), float(rng.choice([0, 0, 128, 255])))
    taken = rng.permutation(n * n)[: int(rng.integers(1, n * n + 1))]
    for i in taken:
        image = Image.fromarray(_pick_scan(rng, scans).astype(np.uint8)).resize((side, side))
        y, x = divmod(int(i), n)
        picture[y * side : (y + 1) * side, x * side : (x + 1) * side] = np.asarray(image)
    return picture


def _invert(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Exchange black and white of a scan."""
    return rng.uniform(180, 255) - _pick_scan(rng, scans) * rng.uniform(0.6, 1)


def _fill_outline(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    """Fill the outline of a scan with another kind of picture."""
    scan = _pick_scan(rng, scans)
    rows = scan > 24
    inside = np.logical_and(
        np.logical_or.accumulate(rows, 1) & np.logical_or.accumulate(rows[:, ::-1], 1)[:, ::-1],
        np.logical_or.accumulate(rows, 0) & np.logical_or.accumulate(rows[::-1], 0)[::-1],
    )
    other = [_draw_leaves, _draw_spectrum, _draw_waves, _draw_body][int(rng.integers(4))](
        rng, scans
    )
    inside = _erode(inside, int(rng.choice([1, 3, 6])))
    return np.where(inside, other, scan * (rng.random() < 0.6))


KINDS: dict[str, Callable[[np.random.Generator, np.ndarray], Picture]] = {
    "leaves": _draw_leaves,
    "spectrum": _draw_spectrum,
    "waves": _draw_waves,
    "body": _draw_body,
    "limbs": _draw_limbs,
    "shuffled": _shuffle_tiles,
    "zoomed": _enlarge_detail,
    "mosaic": _tile_scans,
    "inverted": _invert,
    "filled": _fill_outline,
}


def _pick_scan(rng: np.random.Generator, scans: np.ndarray) -> Picture:
    return np.asarray(scans[int(rng.integers(len(scans)))], dtype=float)


def _draw_level(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 256))


def _draw_clouds(rng: np.random.Generator, power: float) -> Picture:
    """Draw noise of amplitude 1 / frequency ** power; mean 0, standard deviation 1."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    frequency = np.hypot(fy * rng.uniform(0.5, 2), fx)
    frequency[0, 0] = 1
    noise = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / frequency**power
    noise[0, 0] = 0
    clouds = np.fft.irfft2(noise, (SIZE, SIZE))
    return np.asarray(clouds / clouds.std())


def _draw_outline(rng: np.random.Generator, radius: float, flatness: float) -> np.ndarray:
    """Draw a closed smooth line; return its inside (SIZE, SIZE) bool."""
    cy, cx = SIZE / 2 + rng.uniform(-0.15, 0.15, 2) * SIZE
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    tilt = rng.uniform(0, math.pi)
    u = (x - cx) * math.cos(tilt) + (y - cy) * math.sin(tilt)
    v = ((y - cy) * math.cos(tilt) - (x - cx) * math.sin(tilt)) / flatness
    angle, edge, waviness = np.arctan2(v, u), np.ones((SIZE, SIZE)), rng.uniform(0, 0.3)
    for k in range(2, 8):
        edge += rng.normal(0, waviness / k) * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
    return np.asarray(np.hypot(u, v) < radius * edge)


def _erode(inside: np.ndarray, pixels: int) -> np.ndarray:
    image = Image.fromarray(inside.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MinFilter(2 * pixels + 1))) > 0


def _draw_shape(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, at: np.ndarray, size: float, level: int
) -> None:
    x, y = at.tolist()
    a, b = size / 2 * rng.uniform(0.3, 1, 2)
    box, kind = [x - a, y - b, x + a, y + b], int(rng.integers(4))
    if kind == 0:
        draw.rectangle(box, fill=level)
    elif kind == 1:
        corners = rng.uniform(-size / 2, size / 2, (int(rng.integers(3, 7)), 2)) + at
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=level)
    elif kind == 2:
        draw.ellipse(box, outline=level, width=max(1, int(size * rng.uniform(0.03, 0.2))))
    else:
        draw.ellipse(box, fill=level)


def _shade(rng: np.random.Generator, image: Image.Image) -> Picture:
    """Blur and shade a picture as a camera or a coil does."""
    soft = image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0.7, 1.5, 3]))))
    ramp = np.linspace(-1, 1, SIZE) * rng.uniform(-0.25, 0.25)
    return (
        np.asarray(soft, dtype=float)
        * (1 + ramp)
        * (1 + 0.1 * _draw_clouds(rng, 1.5) * rng.random())
    )
