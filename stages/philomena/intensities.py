"""A picture's intensities: the brightness of its four quadrants, by which a board finds near-duplicates.

Source: philomena-dev/philomena, `lib/philomena/image_intensities.ex`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in BT.709 luma."""
STRIP = 1_000_000
"""Pixels to process at a time: they fit a cache, and a huge picture is in memory once and not four times."""


def corners(image: Image.Image) -> tuple[float, float, float, float]:
    """Mean BT.709 luma of the quadrants nw, ne, sw, se on a white background, 0 to 255.

    The sums are of integers, so the strips' size does not change the result.
    """
    width, height = image.size
    middle = max(1, width // 2)
    lumas = []
    for top, bottom in ((0, max(1, height // 2)), (min(height // 2, height - 1), height)):
        sums = np.zeros((2, 5))
        for start in range(top, bottom, rows := max(1, STRIP // width)):
            strip = image.crop((0, start, width, min(bottom, start + rows))).convert("RGBA").convert("RGBa")
            for side, (left, right) in enumerate(((0, middle), (width - middle, width))):
                sums[side] += _sums(strip.crop((left, 0, right, strip.height)))
        for red, green, blue, alpha, pixels in sums:
            luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            lumas.append(round(float(255 + (luma - alpha) / pixels), 6))
    nw, ne, sw, se = lumas
    return nw, ne, sw, se


def _sums(part: Image.Image) -> tuple[float, ...]:
    """Sum of each band of a premultiplied RGBa picture, and its number of pixels."""
    histogram = np.array(part.histogram(), dtype=np.int64).reshape(4, 256)
    return (*(histogram @ np.arange(256)).tolist(), part.width * part.height)
