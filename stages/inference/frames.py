"""An animated picture -> the frames that are judged, spread evenly over it. Only Pillow and numpy."""

from __future__ import annotations

import struct
import time
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stages.inference.decoding import Caps, Pixels, letterbox, open_checked
from stages.workspace.errors import PictureError

CAPS = Caps()


@dataclass(frozen=True)
class Seen:
    """What was decoded of one picture."""

    frames: Pixels
    """uint8 [n, size, size, 3], RGB, letterboxed; one of a still picture."""
    width: int
    """Of the picture, in px, as it is shown (after its EXIF orientation)."""
    height: int
    missed: int = 0
    """Frames that were to be looked at but could not be, for want of time or because the file ends early."""


def frames(
    data: bytes, size: int, background: int = 128, caps: Caps = CAPS, count: int = 8, seconds: float = 5.0
) -> Seen:
    """Decode up to `count` frames of a picture, the first one and others spread evenly, within about `seconds`.

    Raises:
        PictureError: `too_large` or `corrupt`, if not even the first frame can be seen; never anything else.
    """
    until = time.monotonic() + seconds
    image = open_checked(data, caps)
    seen: list[Pixels] = []
    missed = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height = _shown(image)
            total, said = _count(data, image, caps, until)
            wanted = {round(place) for place in np.linspace(0, total - 1, min(total, count))}
            missed = len(wanted) + (said > total)
            seen.append(letterbox(image, size, background))
            for place in range(1, total):
                if time.monotonic() > until:
                    break
                image.seek(place)  # each frame is painted over those before it, so none can be left out
                image.load()
                if place in wanted:
                    seen.append(letterbox(image, size, background))
    except PictureError:
        raise
    except Exception as error:
        if not seen:
            raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error
    return Seen(np.stack(seen), width, height, missed - len(seen))


def _shown(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation, 5 to 8 of which lie on their side."""
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def _count(data: bytes, image: Image.Image, caps: Caps, until: float) -> tuple[int, int]:
    """How many frames are there, and how many there are said to be: what a header says may be a lie.

    Raises:
        PictureError: `too_large`, if a frame is.
    """
    said = int(getattr(image, "n_frames", 1)) if image.format in ("PNG", "WEBP") else 1
    if image.format == "GIF":
        return _gif(data, caps, until)
    if image.format == "PNG" and said > 1:
        return max(1, min(said, _apng(data))), said
    return said, said  # of a JPEG one: what a phone puts behind the picture is not shown


def _gif(data: bytes, caps: Caps, until: float) -> tuple[int, int]:
    """As `_count`, by the file's blocks alone: Pillow lets a frame outgrow the picture, up to caps of its own."""
    width, height = struct.unpack_from("<HH", data, 6)
    at, found = 13 + _palette(data[10]), 0
    try:
        while (kind := data[at]) != 0x3B:
            at += 1
            if kind == 0x2C:
                found += 1
                left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at)
                width, height = max(width, left + across), max(height, top + down)
                if width * height > caps.max_pixels:
                    raise PictureError("too_large", f"{width}x{height} pixels, over the cap of {caps.max_pixels}")
                if time.monotonic() > until:
                    return found, found + 1
                at += 10 + _palette(flags)
            elif kind == 0x21:
                at += 1
            else:
                continue  # between blocks, decoders skip what they do not know
            while data[at]:
                at += 1 + data[at]
            at += 1
    except (IndexError, struct.error):
        pass  # it ends early; the last frame will tell
    return max(1, found), found


def _palette(flags: int) -> int:
    """Bytes of a palette, by the byte that says whether there is one."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _apng(data: bytes) -> int:
    """Frames of an animated PNG, by its chunks; a picture for those who cannot see animations counts as one."""
    at, found, shown_alone = 8, 0, False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found += kind == b"fcTL"
        shown_alone |= kind == b"IDAT" and not found
        at += 12 + length
    return found + shown_alone
