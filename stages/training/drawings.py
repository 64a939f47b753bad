"""Random drawings: pictures of no data set, on which a frozen network's activations are measured.

They are a dead-leaves model: shapes of all sizes, each covering what was drawn before, which gives edges and areas in
the proportions of natural pictures. Source: Lee, Mumford & Huang, "Occlusion Models for Natural Images" (2001). Some
have noise, and some the grey borders of a letterboxed picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stages.inference.decoding import Pixels

RULE = 1
"""Part of the cache keys. Increase it when `draw` gives other pictures."""
GREY = 128
"""Of the borders."""


def draw(count: int, size: int, seed: int) -> Pixels:
    """Random drawings, uint8 [count, size, size, 3]. The same arguments give the same drawings."""
    random = np.random.default_rng(seed)
    return np.stack([_finish(_leaves(size, random), random) for _ in range(count)])


def _leaves(size: int, random: np.random.Generator) -> Image.Image:
    """Shapes of random kinds, places and colours, on a white background or a coloured one."""
    side = 2 * size  # drawn at twice the size, so that scaling down smooths the edges
    colours = random.integers(0, 256, (300, 3)).tolist()
    image = Image.new("RGB", (side, side), (255, 255, 255) if random.random() < 0.5 else tuple(colours[0]))
    canvas = ImageDraw.Draw(image)
    for colour in colours[: int(random.integers(3, 300))]:
        # Radii by a power law: many small shapes, few large ones.
        radius = min(side / 2, side * 0.02 * (1 - random.random()) ** -0.7)
        _leaf(canvas, random.random(2) * side, radius, tuple(colour), random)
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _leaf(
    canvas: ImageDraw.ImageDraw,
    centre: NDArray[np.float64],
    radius: float,
    colour: tuple[int, ...],
    random: np.random.Generator,
) -> None:
    """One ellipse, rectangle, polygon or line; some have a black outline."""
    kind = random.integers(4)
    outline, width = ((0, 0, 0) if random.random() < 0.3 else None), int(random.integers(1, 8))
    if kind < 2:
        reach = radius * np.array([1, random.uniform(0.3, 1)])
        shape = canvas.ellipse if kind else canvas.rectangle
        shape((*(centre - reach), *(centre + reach)), fill=colour, outline=outline, width=width)
    elif kind == 2:
        angles = np.sort(random.random(int(random.integers(3, 8)))) * 2 * np.pi
        corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        canvas.polygon(corners.ravel().tolist(), fill=colour, outline=outline)
    else:
        canvas.line((*centre, *(centre + radius * random.normal(size=2))), fill=colour, width=width)


def _finish(image: Image.Image, random: np.random.Generator) -> Pixels:
    """Add noise to some drawings, and borders to some."""
    values: NDArray[np.floating[Any]] = np.asarray(image, np.float32)
    if random.random() < 0.4:
        values = values + random.normal(0, random.uniform(0, 40), values.shape)
    pixels = values.clip(0, 255).astype(np.uint8)
    if random.random() < 0.3:
        border = int(len(pixels) * random.uniform(0.05, 0.25))
        pixels[:border] = pixels[len(pixels) - border :] = GREY
    return pixels
