"""Small files that keep a decoder busy or make it take much memory, one of each kind; all within the bot's limits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

import numpy as np
from containers import chunk, dot, encoded, gif, scans, webp
from PIL import Image

MB = 1_000_000
SIDE = 5000
"""Of large pictures, px: 25 megapixels, as many as the bot takes."""


@cache
def small(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    return encoded([Image.fromarray(noise)], kind)


def padded(size: int = 24 * MB) -> bytes:
    """A PNG with this much after its end."""
    return small("PNG") + bytes(size)


def chunks(count: int = 2 * MB) -> bytes:
    """A PNG with so many chunks, 12 bytes each."""
    data = small("PNG")
    return data[:33] + chunk(b"teXt", b"") * count + data[33:]


def comments(count: int = 6 * MB) -> bytes:
    """A JPEG with so many comments, 4 bytes each."""
    data = small("JPEG")
    return data[:2] + b"\xff\xfe\0\2" * count + data[2:]


def segments(count: int = 300) -> bytes:
    """A JPEG with so many segments of 64 kB that look like Exif."""
    data = small("JPEG")
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0MM\0*" + bytes(65_523)) * count + data[2:]


def transparent(side: int = SIDE) -> bytes:
    """A PNG of 25 megapixels with an alpha channel."""
    image = Image.new("RGBA", (side, side), (200, 30, 30, 120))
    return encoded([image], "PNG", compress_level=1)


def coefficients(side: int = SIDE) -> bytes:
    """A progressive JPEG, which a decoder holds as coefficients."""
    return encoded([Image.new("RGB", (side, side), "navy")], "JPEG", progressive=True, subsampling=0)


KINDS = {
    "scans": lambda: scans(SIDE, 3000),
    "scans under the cap": lambda: scans(SIDE, 90),
    "frames": lambda: webp(SIDE, 3000),
    "smaller frames": lambda: webp(2500, 3000),
    "gif frames": lambda: gif(3000, 3000, *[dot((2999, 2999))] * 100_000),
    "still webp": lambda: encoded([Image.new("RGB", (SIDE, SIDE), "navy")], "WEBP", lossless=False),
    "avif": lambda: encoded([Image.new("RGB", (SIDE, SIDE), "navy")], "AVIF", speed=10),
    "coefficients": coefficients,
    "transparent": transparent,
    "padding": padded,
    "chunks": chunks,
    "comments": comments,
    "segments": segments,
}
"""Name -> what makes it. Each takes a second at most."""


def different(kinds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """These files in turns for ever, no bytes twice."""
    number = 0
    while True:
        for name, data in kinds.items():
            number += 1
            yield name, data + struct.pack(">Q", number)
