"""Labelled images of traffic signs, drawn from a seed: the demo's clean data.

Each image is a function of (seed, index) alone, so a larger set begins with the smaller one. The
scene is made to resemble a small photograph (gradients, texture with a natural spectrum, blur,
sensor noise), because the restorer was trained on photographs and flat drawings would be a test
of something else. Glyphs are bold: at 32 px a thin stroke is noise to any restorer.

Cost: about 3 ms an image on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jobs.demo.faces import FACES, Layer

SIZE = 32
OVERSAMPLE = 3  # edges are drawn at 96 px and averaged down; the lens' blur hides what more would add
CANVAS = SIZE * OVERSAMPLE

CLASS_NAMES = tuple(FACES)

PAINT = {
    "red": (196, 30, 40),
    "blue": (22, 78, 170),
    "white": (236, 236, 230),
    "black": (28, 28, 30),
    "yellow": (242, 190, 30),
}

SCENES = (
    ((150, 190, 232), (206, 220, 232), (92, 108, 70)),  # sky above a meadow
    ((176, 184, 194), (206, 208, 210), (104, 102, 100)),  # clouds above a road
    ((70, 100, 60), (100, 126, 76), (80, 86, 60)),  # trees
    ((160, 126, 104), (178, 150, 128), (112, 108, 108)),  # a brick wall
    ((50, 58, 84), (92, 92, 108), (44, 46, 54)),  # dusk
    ((236, 190, 150), (214, 160, 128), (100, 84, 78)),  # evening
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Drawn images, uint8 [n, 32, 32, 3], and their classes, int64 [n], indices into `CLASS_NAMES`."""

    images: np.ndarray
    labels: np.ndarray


def draw(count: int, seed: int) -> Drawn:
    """Draw `count` images; each run of as many as there are classes holds every class once."""
    labels = np.array([_label(seed, index) for index in range(count)], dtype=np.int64)
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index] = draw_one(int(label), np.random.default_rng([seed, 1, index]))
    return Drawn(images, labels)


def draw_one(label: int, random: np.random.Generator) -> np.ndarray:
    """One image of a class, uint8 [32, 32, 3]."""
    scene = _scene(random)
    sign, cover = _sign(FACES[CLASS_NAMES[label]], random)
    lit = sign * _lighting(random, strength=0.3) * (1 + 0.03 * _texture(random, rough=0.8))
    pixels = scene * (1 - cover) + lit * cover
    return _photograph(pixels, random)


def _label(seed: int, index: int) -> int:
    block, place = divmod(index, len(CLASS_NAMES))
    return int(np.random.default_rng([seed, 0, block]).permutation(len(CLASS_NAMES))[place])


def _scene(random: np.random.Generator) -> np.ndarray:
    """A background with a horizon, soft blocks and texture, float [96, 96, 3] in 0 to 255."""
    top, middle, ground = np.array(SCENES[random.integers(len(SCENES))], dtype=float)
    horizon = random.uniform(0.4, 1.1)
    height = np.linspace(0, 1, CANVAS)[:, None, None]
    scene = np.where(height < horizon, top + (middle - top) * (height / horizon), ground)
    picture = Image.fromarray(np.broadcast_to(scene, (CANVAS, CANVAS, 3)).astype(np.uint8))
    brush = ImageDraw.Draw(picture)
    for _ in range(random.integers(0, 5)):
        x, y = random.uniform(-0.2, 0.9, 2) * CANVAS
        width, tall = random.uniform(0.1, 0.5, 2) * CANVAS
        tone = np.clip(ground * random.uniform(0.5, 1.6) + random.normal(0, 12, 3), 0, 255)
        brush.rectangle((x, y, x + width, y + tall), fill=tuple(int(v) for v in tone))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 2) * OVERSAMPLE)), dtype=float)
    return blurred * (1 + random.uniform(0.04, 0.16) * _texture(random, rough=1.0))


def _sign(layers: tuple[Layer, ...], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A sign on its pole, float [96, 96, 3], and what it covers, float [96, 96, 1] in 0 to 1."""
    radius = random.uniform(0.31, 0.42) * CANVAS
    centre = CANVAS / 2 + random.uniform(-0.07, 0.07, 2) * CANVAS
    view = _viewpoint(random) * radius
    fade, tint = random.uniform(0.0, 0.25), random.normal(0, 8, 3)
    picture, cover = Image.new("RGB", (CANVAS, CANVAS)), Image.new("L", (CANVAS, CANVAS))
    brushes = ImageDraw.Draw(picture), ImageDraw.Draw(cover)
    pole = (centre[0] - 0.07 * radius, centre[1], centre[0] + 0.07 * radius, float(CANVAS))
    gray = int(random.uniform(70, 150))
    brushes[0].rectangle(pole, fill=(gray, gray, gray))
    brushes[1].rectangle(pole, fill=255)
    for paint, outline in layers:
        corners = [(float(x), float(y)) for x, y in np.asarray(outline) @ view.T + centre]
        worn = np.array(PAINT[paint]) * (1 - fade) + 150 * fade + tint
        brushes[0].polygon(corners, fill=tuple(int(v) for v in np.clip(worn, 0, 255)))
        brushes[1].polygon(corners, fill=255)
    return np.asarray(picture, dtype=float), np.asarray(cover, dtype=float)[..., None] / 255


def _viewpoint(random: np.random.Generator) -> np.ndarray:
    """A turn of up to 10 degrees and a slanted look, [2, 2]: signs stay upright, so arrows mean something."""
    turn = np.deg2rad(random.uniform(-10, 10))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    slant = np.array([[random.uniform(0.82, 1.0), 0.0], [random.uniform(-0.12, 0.12), random.uniform(0.9, 1.0)]])
    view: np.ndarray = rotation @ slant
    return view


def _lighting(random: np.random.Generator, strength: float) -> np.ndarray:
    """Light that falls off along a random direction, about 1, float [96, 96, 1]."""
    angle, slope = random.uniform(0, 2 * np.pi), random.uniform(0, strength)
    axis = np.linspace(-1, 1, CANVAS)
    ramp = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    light: np.ndarray = 1 + slope * ramp
    return light[..., None]


def _texture(random: np.random.Generator, rough: float) -> np.ndarray:
    """Random relief whose detail fades with its scale as in photographs, unit variance, [96, 96, 1]."""
    relief = np.zeros((CANVAS, CANVAS))
    for cells in (2, 4, 8, 16, 32):
        grid = random.standard_normal((cells, cells)).astype(np.float32)
        relief += cells ** (-1 / rough) * np.asarray(
            Image.fromarray(grid).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
        )
    unit: np.ndarray = (relief - relief.mean()) / relief.std()
    return unit[..., None]


def _photograph(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, a slightly blurred lens, pixels and their noise; uint8 [32, 32, 3]."""
    exposed = pixels * _lighting(random, strength=0.25) * random.uniform(0.6, 1.15) * random.uniform(0.94, 1.06, 3)
    lens = Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))
    lens = lens.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.7) * OVERSAMPLE))
    small = np.asarray(lens.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=float)
    noisy = small + random.uniform(0, 4) * random.standard_normal(small.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
