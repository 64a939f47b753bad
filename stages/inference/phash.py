"""Perceptual hashes: 64 bits, few of which differ between pictures that look alike. No pandas, no pyarrow.

Source: the pHash of the ImageHash package (the signs of a picture's lowest DCT frequencies).
"""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

from stages.inference.decoding import UNCAPPED, Pixels, first_frame, letterbox, picture_errors

SIDE = 128
"""Side of the square that `hash_picture` decodes to, in px: pHash itself scales down to 32 px."""
GREY = 128
"""Grey level behind transparent parts."""


def phash(picture: Pixels) -> int:
    """ImageHash's 64-bit pHash of a picture, uint8 [height, width, 3], as an unsigned integer."""
    bits = imagehash.phash(Image.fromarray(picture)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def inside(square: Pixels, width: int, height: int) -> Pixels:
    """Crop the borders off a letterboxed picture: with them, all tall pictures would have similar hashes.

    Args:
        square: uint8 [size, size, 3].
        width: of the picture before letterboxing, in px.
        height: of the picture before letterboxing, in px.

    Returns:
        uint8 [height, width, 3], the longer side being `size`.
    """
    size = len(square)
    scale = size / max(width, height)
    across, down = (max(1, round(side * scale)) for side in (width, height))
    left, top = (size - across) // 2, (size - down) // 2
    return square[top : top + down, left : left + across]


def hash_picture(data: bytes) -> int:
    """The 64-bit pHash of a downloaded picture's first frame, as an unsigned integer.

    Raises:
        PictureError: `corrupt`, `timed_out`, or `too_large` for Pillow itself (over 179 megapixels).
    """
    image = first_frame(data, SIDE, UNCAPPED, GREY)
    with picture_errors():
        return phash(inside(letterbox(image, SIDE, GREY), *image.size))
