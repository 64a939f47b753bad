"""Pictures and animations; those whose files lie are written block by block, as no encoder makes them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

BLACK, WHITE = b"\x02\x02\x44\x01\x00", b"\x02\x02\x4c\x01\x00"
"""A pixel of a GIF, packed."""


def drawing(seed: int = 0, width: int = 300, height: int = 200) -> Image.Image:
    """Discs of any colours."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = rng.integers(0, width), rng.integers(0, height), rng.integers(20, 120)
        draw.ellipse((int(x), int(y), int(x + side), int(y + side)), tuple(map(int, rng.integers(0, 256, 3))))
    return image


def encoded(images: list[Image.Image], kind: str, **options: object) -> bytes:
    """A picture, or an animation of several."""
    out = io.BytesIO()
    several = {"save_all": True, "append_images": images[1:], "duration": 50, **options} if images[1:] else {}
    lossless = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(out, kind, **{**several, **lossless, **options})
    return out.getvalue()


def gif(width: int, height: int, *frames: bytes) -> bytes:
    """A black and white GIF of these blocks."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"".join(frames) + b";"


def dot(at: tuple[int, int] = (0, 0), pixel: bytes = WHITE) -> bytes:
    """A frame of one pixel."""
    return b"," + struct.pack("<HHHHB", *at, 1, 1, 0) + pixel


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def saying(data: bytes, count: int) -> bytes:
    """An animated PNG that says it has so many frames."""
    at = data.index(b"acTL") - 4
    return data[:at] + chunk(b"acTL", struct.pack(">II", count, 0)) + data[at + 20 :]


def bomb(width: int, height: int) -> bytes:
    """A PNG of 60 bytes whose header claims a size that it does not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def riff(kind: bytes, body: bytes) -> bytes:
    """A chunk of a WebP, or all of it."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(side: int, count: int) -> bytes:
    """An animated WebP of small frames on a large canvas, each of which is painted as a whole."""
    small = encoded([Image.new("RGB", (2, 2), "red")], "WEBP")[12:]
    where = struct.pack("<I", 0)[:3] * 2 + struct.pack("<I", 1)[:3] * 2 + struct.pack("<I", 50)[:3] + b"\0"
    canvas = struct.pack("<I", 2) + struct.pack("<I", side - 1)[:3] * 2
    parts = riff(b"VP8X", canvas) + riff(b"ANIM", bytes(6)) + riff(b"ANMF", where + small) * count
    return riff(b"RIFF", b"WEBP" + parts)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG of one grey square that is refined so many times; each pass takes as long as decoding it."""
    plain = encoded([Image.new("L", (side, side), 100)], "JPEG", progressive=True)
    first, last = plain.index(b"\xff\xda"), plain.rfind(b"\xff\xda")
    return plain[:first] + plain[first:-2] + plain[last:-2] * count + plain[-2:]
