"""A perceptual hash: pictures that look alike differ in few of its 64 bits. No pandas, no pyarrow: the bot needs it."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

from stages.inference.decoding import Pixels


def phash(picture: Pixels) -> int:
    """ImageHash's 64-bit pHash of a picture, uint8 [height, width, 3], as an unsigned integer."""
    hashed = imagehash.phash(Image.fromarray(picture))
    return int.from_bytes(np.packbits(hashed.hash).tobytes(), "big")


def inside(square: Pixels, width: int, height: int) -> Pixels:
    """A letterboxed picture without its borders, which would make all tall pictures look alike.

    Args:
        square: uint8 [size, size, 3].
        width: of the picture before, in px.
        height: of the picture before, in px.
    """
    size = len(square)
    scale = size / max(width, height)
    across, down = (max(1, round(side * scale)) for side in (width, height))
    left, top = (size - across) // 2, (size - down) // 2
    return square[top : top + down, left : left + across]
