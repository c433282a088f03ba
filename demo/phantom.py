"""Procedural axial brain phantoms: synthetic scans for examples and tests.

A phantom is drawn, not recorded: scalp, skull, folded cortex, white matter, ventricles, falx, a
coil's bias field and Rician noise, in one of four contrasts (T1, T1 with contrast agent, T2,
FLAIR). With `tumour=True` it holds a mass with an irregular rim that pushes its surroundings aside,
solid, ring-enhancing or cystic, often with oedema. The same seed draws the same head with and
without its tumour.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

SIZE = 224
# Brightness of each tissue per contrast: scalp, bone, CSF, grey and white matter, deep nuclei.
CONTRASTS = {
    "T1": (0.85, 0.06, 0.10, 0.36, 0.57, 0.45),
    "T1c": (0.85, 0.06, 0.09, 0.34, 0.47, 0.40),
    "T2": (0.60, 0.05, 0.92, 0.54, 0.34, 0.42),
    "FLAIR": (0.75, 0.05, 0.07, 0.43, 0.32, 0.38),
}
# Brightness of a tumour's kinds per contrast: solid or rim, core of a ring or cyst, oedema.
TUMOURS = {
    "T1": (0.24, 0.12, 0.36),
    "T1c": (0.92, 0.14, 0.30),
    "T2": (0.80, 0.97, 0.74),
    "FLAIR": (0.74, 0.30, 0.62),
}


def draw_phantom(seed: int, tumour: bool) -> Tensor:
    """Draw one synthetic axial slice.

    Args:
        seed: of everything but the tumour's presence; a non-negative integer.
        tumour: True draws a mass.

    Returns:
        Float32 tensor (1, 224, 224) in [0, 1], every value a multiple of 1 / 255.
    """
    head, mass = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    contrast = str(head.choice(list(CONTRASTS)))
    x, y = _draw_pose(head)
    lesion = _Lesion(mass) if tumour else None
    if lesion is not None:
        x, y = lesion.push(x, y)
    picture = _draw_head(head, x, y, *CONTRASTS[contrast])
    if lesion is not None:
        picture = lesion.paint(picture, *TUMOURS[contrast])
    picture = _acquire(head, picture)
    if head.random() < 0.5:
        picture = picture[:, ::-1]
    return torch.from_numpy(np.rint(picture * 255).astype(np.float32)[None] / np.float32(255))


def _draw_pose(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pose; return head coordinates (x right, y down, scalp near radius 1), (224, 224)."""
    axis = ((np.arange(SIZE) - (SIZE - 1) / 2) / (SIZE / 2)).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    x, y = x - rng.normal(0, 0.02), y - rng.normal(0, 0.02)
    angle = math.radians(rng.normal(0, 4))
    x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    scale = rng.uniform(0.78, 0.97)
    return x / (scale * rng.uniform(0.76, 0.86)), y / scale


def _draw_head(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    scalp: float,
    bone: float,
    csf: float,
    grey: float,
    white: float,
    nuclei: float,
) -> np.ndarray:
    theta = np.arctan2(y, x)
    outline = 1 + 0.03 * np.sin(theta) * abs(np.cos(theta)) + _draw_harmonics(rng, theta, 0.012)
    rho = np.hypot(x, y) / outline
    brain_edge = rng.uniform(0.84, 0.88)
    bone_edge = rng.uniform(0.91, 0.95)
    # Sulci run inwards: noise that changes fast along the surface, slowly with depth, then warped.
    stretch = np.maximum(rho, 0.05) ** -rng.uniform(0.5, 0.7)
    bend = [_draw_noise(rng, x, y, 9) * 0.045 for _ in range(2)]
    fold = _draw_noise(rng, x * stretch + bend[0], y * stretch + bend[1], rng.uniform(15, 20))
    depth = brain_edge - rho  # distance below the brain's surface
    cortex = _soften((0.19 + 0.06 * _draw_noise(rng, x, y, 7) - depth) / 0.05)  # where gyri fold
    picture = white * (1 + 0.035 * _draw_noise(rng, x, y, 6) + 0.025 * _draw_noise(rng, x, y, 25))
    ribbon = np.maximum(np.exp(-((fold / 0.8) ** 2)) * cortex, _soften((0.035 - depth) / 0.02))
    picture = _mix(picture, grey, ribbon)
    for side in (-1, 1):  # thalamus, then lentiform nucleus
        picture = _mix(
            picture, nuclei, _draw_capsule(side * x, y, (0.11, 0.02), (0.14, 0.12), 0.085, 0.10)
        )
        picture = _mix(
            picture, nuclei, _draw_capsule(side * x, y, (0.27, -0.12), (0.30, 0.08), 0.07, 0.06)
        )
    reach = rng.uniform(0.11, 0.2) + 0.06 * _draw_noise(rng, x, y, 8) - depth
    width = rng.uniform(0.14, 0.32) * (1 + 0.3 * _draw_noise(rng, x, y, 5))
    sulci = np.exp(-((fold / width) ** 2)) * _soften(reach / 0.04) * rng.uniform(0.55, 1)
    picture = _mix(picture, csf, sulci)
    picture = _mix(picture, csf, _draw_ventricles(rng, x, y))
    gap = x - 0.012 * np.sin(5 * y + rng.uniform(0, 6))
    fissure = np.exp(-((gap / 0.02) ** 2)) * _soften(
        (abs(y + 0.02) - rng.uniform(0.34, 0.42)) / 0.03
    )
    picture = _mix(picture, csf, 0.85 * fissure)
    picture = _mix(picture, csf, _soften((rho - brain_edge) / 0.008))
    picture = _mix(picture, bone, _soften((rho - brain_edge - rng.uniform(0.008, 0.03)) / 0.008))
    picture = _mix(picture, scalp * rng.uniform(0.7, 1.1), _soften((rho - bone_edge) / 0.008))
    return _mix(picture, 0, _soften((rho - 1) / 0.008))


def _draw_ventricles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw the lateral and third ventricles: each pixel's share inside them."""
    size, lift = rng.uniform(0.75, 1.35), rng.uniform(-0.06, 0.04)
    y = y - lift
    inside = _draw_capsule(x, y, (0, 0.0), (0, 0.13), 0.012, 0.016)
    for side in (-1, 1):
        u = side * x - rng.uniform(0, 0.015) - 0.9 * (y + 0.03) ** 2  # both ends curve outwards
        horn = _draw_capsule(u, y, (0.045, -0.08), (0.06, -0.30), 0.022 * size, 0.048 * size)
        body = _draw_capsule(u, y, (0.045, -0.12), (0.06, 0.16), 0.020 * size, 0.012 * size)
        back = _draw_capsule(u, y, (0.06, 0.16), (0.09, 0.33), 0.014 * size, 0.040 * size)
        inside = np.maximum.reduce([inside, horn, body, back])
    return inside


class _Lesion:
    """Mass with place, shape and tissue."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.34, 0.58)
        self.centre = (distance * math.cos(angle), distance * math.sin(angle))
        self.radius = rng.uniform(0.11, 0.25)
        self.kind = str(rng.choice(["solid", "ring", "cyst"], p=[0.5, 0.35, 0.15]))
        self.oedema = rng.uniform(1.3, 2.0) if rng.random() < 0.65 else 0.0
        self.rng = rng

    def push(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the mass effect: look up anatomy nearer to the centre, which moves it outwards."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        reach = np.exp(-(dx**2 + dy**2) / (2 * (1.6 * self.radius) ** 2))
        inside = _soften((0.75 - np.hypot(x, y)) / 0.08)  # bone does not move
        amount = 0.45 * reach * inside
        self.x, self.y, self.inside = x, y, _soften((0.85 - np.hypot(x, y)) / 0.015)
        return x - dx * amount, y - dy * amount

    def paint(self, picture: np.ndarray, solid: float, core: float, oedema: float) -> np.ndarray:
        rng, dx, dy = self.rng, self.x - self.centre[0], self.y - self.centre[1]
        theta = np.arctan2(dy, dx)
        ragged = 1 + _draw_harmonics(rng, theta, 0.10) + 0.07 * _draw_noise(rng, self.x, self.y, 16)
        rho = np.hypot(dx, dy) / (self.radius * ragged)
        if self.oedema:
            fingers = 1 + 0.16 * _draw_noise(rng, self.x, self.y, 9)
            around = _soften((self.oedema - rho / fingers) / 0.18) * rng.uniform(0.6, 0.95)
            picture = _mix(picture, oedema, around * self.inside)
        texture = 1 + rng.uniform(0.05, 0.16) * _draw_noise(rng, self.x, self.y, 14)
        picture = _mix(picture, solid * texture, _soften((1 - rho) / 0.05) * self.inside)
        if self.kind != "solid":
            rim = rng.uniform(0.10, 0.16) if self.kind == "cyst" else rng.uniform(0.25, 0.40)
            hollow = 1 - rim * (1 + 0.35 * _draw_noise(rng, self.x, self.y, 10))
            picture = _mix(picture, core * texture, _soften((hollow - rho) / 0.06) * self.inside)
        return picture


def _acquire(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Simulate the scanner: coil shading, point spread, Rician noise, window; clip to [0, 1]."""
    axis = np.linspace(-1, 1, SIZE)
    slope = rng.normal(0, 0.08, 4)
    bias = (
        1
        + slope[0] * axis[:, None]
        + slope[1] * axis
        + slope[2] * axis[:, None] ** 2
        + slope[3] * axis**2
    )
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * rng.uniform(0.5, 0.9) ** 2))
    kernel /= kernel.sum()
    for direction in (0, 1):
        picture = np.apply_along_axis(np.convolve, direction, picture, kernel, "same")
    sigma = rng.uniform(0.008, 0.03)
    real = picture * bias + rng.normal(0, sigma, picture.shape)
    magnitude = np.hypot(real, rng.normal(0, sigma, picture.shape))
    return np.clip(magnitude * rng.uniform(0.75, 1.15) - rng.uniform(0.5, 1.5) * sigma, 0, 1)


def _draw_noise(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, frequency: float
) -> np.ndarray:
    """Draw smooth isotropic noise of unit variance: `frequency` radians to a head radius."""
    waves = 16
    angle, phase = rng.uniform(0, math.pi, waves), rng.uniform(0, 2 * math.pi, waves)
    length = frequency * rng.uniform(0.7, 1.5, waves)
    total = np.zeros_like(x)
    for kx, ky, p in zip(length * np.cos(angle), length * np.sin(angle), phase, strict=True):
        total += np.cos(np.float32(kx) * x + np.float32(ky) * y + np.float32(p))
    return total * math.sqrt(2 / waves)


def _draw_harmonics(rng: np.random.Generator, theta: np.ndarray, amount: float) -> np.ndarray:
    """Draw low harmonics, 2 to 6, of a closed curve; they fall with their order."""
    orders = [
        rng.normal(0, amount * 2 / k) * np.cos(k * theta + rng.uniform(0, 6)) for k in range(2, 7)
    ]
    return np.sum(orders, axis=0)


def _draw_capsule(
    x: np.ndarray,
    y: np.ndarray,
    start: tuple[float, float],
    end: tuple[float, float],
    r0: float,
    r1: float,
) -> np.ndarray:
    """Draw a rounded bar of radius r0 to r1: 1 inside, 0 outside, with a soft edge."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    along = (((x - start[0]) * ax + (y - start[1]) * ay) / (ax * ax + ay * ay)).clip(0, 1)
    distance = np.hypot(x - start[0] - along * ax, y - start[1] - along * ay)
    return _soften((r0 + (r1 - r0) * along - distance) / 0.012)


def _soften(value: np.ndarray) -> np.ndarray:
    """Return a soft step: 0 far below 0, 1 far above."""
    return 0.5 + 0.5 * np.tanh(2 * value)


def _mix(below: np.ndarray, above: float | np.ndarray, share: np.ndarray) -> np.ndarray:
    return below + (above - below) * share
