"""Draws the images of the embedded dataset: a body part as a modality shows it, with findings on top.

Coordinates run from -1 to 1 over the image, x to the right and y down. Intensities run from 0 to 1.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]

MODALITIES = ("x-ray", "ct", "mri", "ultrasound")
ORGANS = ("head", "chest", "abdomen")
COMMON = ("mass", "cyst", "calcification", "hemorrhage")
RARE = ("abscess", "fracture", "implant")

COLUMN = {"left": -0.46, "right": 0.46}
ROW = {"upper": -0.46, "middle": 0.0, "lower": 0.46}
RADIUS = {"small": 0.13, "large": 0.24}


@dataclass(frozen=True)
class Spot:
    """A finding, its position and its size."""

    finding: str
    position: str
    size: str


@dataclass(frozen=True)
class Look:
    """All properties of an image except its random details."""

    modality: str
    organ: str
    spots: tuple[Spot, ...]
    pixels: int
    """Side of the square image, in pixels."""
    contrast: float
    noise: float
    """Standard deviation of the noise."""


def draw(look: Look, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """Draw the image `(pixels, pixels)` and a mask of the same shape for each finding (255 on the finding)."""
    axis = np.linspace(-1, 1, look.pixels)
    x, y = np.meshgrid(axis, axis)
    image, body = TISSUE[look.modality](x, y, look.organ, rng)
    masks = []
    for spot in look.spots:
        side_row, side_column = spot.position.split()
        u = x - COLUMN[side_column] - rng.uniform(-0.06, 0.06)
        v = y - ROW[side_row] - rng.uniform(-0.06, 0.06)
        image, mask = FINDINGS[spot.finding](image, u, v, RADIUS[spot.size] * rng.uniform(0.92, 1.08), rng)
        masks.append(mask)
    grain = rng.normal(size=image.shape)
    # Ultrasound speckle grows with the signal; elsewhere noise is additive.
    noisy = image + look.noise * grain * (0.4 + 1.6 * image if look.modality == "ultrasound" else 1.0)
    displayed = np.clip(0.5 + look.contrast * (noisy - 0.5), 0, 1) * (body if look.modality == "ultrasound" else 1)
    return (displayed * 255).astype(np.uint8), [mask.astype(np.uint8) * 255 for mask in masks]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A grayscale image `(height, width)` as the bytes of a PNG file."""
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


def _ellipse(x: Plane, y: Plane, centre: tuple[float, float], axes: tuple[float, float]) -> Plane:
    """Distance from the centre in units of the ellipse: below 1 is inside."""
    return np.hypot((x - centre[0]) / axes[0], (y - centre[1]) / axes[1])


def _anatomy(x: Plane, y: Plane, organ: str, rng: np.random.Generator) -> tuple[Mask, Mask, Mask, Mask]:
    """Masks of the body, its bony rim, its bright organs and its dark cavities."""
    shift = rng.uniform(-0.04, 0.04, size=2)
    x, y = x - shift[0], y - shift[1]
    if organ == "head":
        outline = _ellipse(x, y, (0, 0), (0.80, 0.94))
        dark = np.minimum(_ellipse(x, y, (-0.12, -0.02), (0.07, 0.22)), _ellipse(x, y, (0.12, -0.02), (0.07, 0.22))) < 1
        return outline < 1, (outline < 1) & (outline > 0.88), np.zeros_like(dark), dark
    if organ == "chest":
        outline = _ellipse(x, y, (0, 0), (0.96, 0.86))
        dark = np.minimum(_ellipse(x, y, (-0.45, 0), (0.36, 0.66)), _ellipse(x, y, (0.45, 0), (0.36, 0.66))) < 1
        heart = _ellipse(x, y, (0.08, 0.22), (0.20, 0.30)) < 1
        return outline < 1, (outline < 1) & (np.abs(x) < 0.05), heart, dark & ~heart
    outline = _ellipse(x, y, (0, 0), (0.95, 0.78))
    liver = _ellipse(x, y, (-0.45, -0.12), (0.40, 0.46)) < 1
    spine = _ellipse(x, y, (0, 0.55), (0.14, 0.14)) < 1
    return outline < 1, spine, liver, _ellipse(x, y, (0.34, -0.34), (0.20, 0.12)) < 1


def _x_ray(x: Plane, y: Plane, organ: str, rng: np.random.Generator) -> tuple[Plane, Plane]:
    body, bone, bright, dark = _anatomy(x, y, organ, rng)
    image = 0.08 + 0.42 * body - 0.24 * dark + 0.10 * bright + 0.22 * bone
    ribs = 0.07 * (np.sin(18 * (y + 0.25 * x**2)) > 0.6) * body
    return image + ribs + 0.05 * y, np.ones_like(x)


def _ct(x: Plane, y: Plane, organ: str, rng: np.random.Generator) -> tuple[Plane, Plane]:
    body, bone, bright, dark = _anatomy(x, y, organ, rng)
    rim = body & (np.hypot(x, y) > 0.80)
    image = 0.02 + 0.36 * body + 0.09 * bright - 0.26 * dark + 0.55 * bone + 0.08 * rim
    table = 0.35 * (np.abs(y - 0.96 + 0.05 * x**2) < 0.025)
    return image + table, np.ones_like(x)


def _mri(x: Plane, y: Plane, organ: str, rng: np.random.Generator) -> tuple[Plane, Plane]:
    body, bone, bright, dark = _anatomy(x, y, organ, rng)
    folds = 0.05 * np.sin(14 * x + 3 * np.sin(7 * y)) * np.sin(13 * y)
    field = 1 + 0.25 * x * rng.choice([-1, 1])
    image = (0.46 * body + folds * body - 0.10 * bright + 0.22 * dark - 0.40 * bone) * field
    return np.clip(image, 0.01, None), np.ones_like(x)


def _ultrasound(x: Plane, y: Plane, organ: str, rng: np.random.Generator) -> tuple[Plane, Plane]:
    body, bone, bright, dark = _anatomy(x, y, organ, rng)
    depth = np.hypot(x, y + 1.35)
    sector = (np.abs(np.arctan2(x, y + 1.35)) < 0.72) & (depth > 0.32) & (depth < 2.3)
    layers = 0.06 * np.sin(26 * depth)
    image = (0.26 + 0.10 * body + 0.12 * bright - 0.14 * dark + 0.20 * bone + layers) * (1.15 - 0.22 * depth)
    return np.clip(image, 0.02, None), sector.astype(float)


def _mass(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    angle = np.arctan2(v, u)
    edge = r * (1 + 0.12 * np.sin(5 * angle + rng.uniform(0, 6.3)))
    mask = np.hypot(u, v) < edge
    return np.where(mask, 0.80, image), mask


def _cyst(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    mask = np.hypot(u, v) < r
    return np.where(mask, 0.04, image), mask


def _calcification(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    mask = np.zeros_like(image, dtype=bool)
    for turn in range(6):
        angle, far = turn * 1.047 + rng.uniform(0, 0.5), r * (0.9 if turn % 2 else 0.45)
        mask |= np.hypot(u - far * np.cos(angle), v - far * np.sin(angle)) < max(0.03, 0.19 * r)
    return np.where(mask, 1.0, image), mask


def _hemorrhage(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    distance = np.hypot(u / (1.25 * r), v / (0.62 * r))
    glow = np.clip(1.15 - distance, 0, 1)
    return image + (0.92 - image) * glow, distance < 0.9


def _abscess(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    distance = np.hypot(u, v)
    mask = distance < r
    return np.where(mask, np.where(distance > 0.60 * r, 0.95, 0.10), image), mask


def _fracture(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    along, across = (u + v) / 1.414, (u - v) / 1.414
    zigzag = 0.22 * r * np.sign(np.sin(9 * along / r))
    mask = (np.abs(across - zigzag) < 0.17 * r + 0.015) & (np.abs(along) < 1.25 * r)
    return np.where(mask, 0.0, image), mask


def _implant(image: Plane, u: Plane, v: Plane, r: float, rng: np.random.Generator) -> tuple[Plane, Mask]:
    mask = (np.abs(u) < 0.85 * r) & (np.abs(v) < 0.85 * r)
    grid = (np.sin(2.6 * np.pi * u / r) * np.sin(2.6 * np.pi * v / r)) > 0
    return np.where(mask, np.where(grid, 1.0, 0.25), image), mask


Tissue = Callable[[Plane, Plane, str, np.random.Generator], tuple[Plane, Plane]]
Painter = Callable[[Plane, Plane, Plane, float, np.random.Generator], tuple[Plane, Mask]]

TISSUE: dict[str, Tissue] = {"x-ray": _x_ray, "ct": _ct, "mri": _mri, "ultrasound": _ultrasound}
FINDINGS: dict[str, Painter] = {
    "mass": _mass,
    "cyst": _cyst,
    "calcification": _calcification,
    "hemorrhage": _hemorrhage,
    "abscess": _abscess,
    "fracture": _fracture,
    "implant": _implant,
}
