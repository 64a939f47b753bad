"""An animation -> the frames that the bot scores, spread evenly over it. Only Pillow and numpy.

Animations are where hostile files hide: a header that announces more frames than there are, a frame that is larger than
the picture, or so many frames that decoding takes minutes. So frames are counted from the file's own blocks before any
is decoded, each frame must keep to the caps, and decoding stops after a time limit.
"""

from __future__ import annotations

import struct
import time
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stages.inference.decoding import CAPS, Caps, Pixels, letterbox, open_checked
from stages.workspace.errors import PictureError

EXIF_ORIENTATION = 0x0112
GIF_TRAILER, GIF_FRAME, GIF_EXTENSION = 0x3B, 0x2C, 0x21
"""First byte of a GIF's blocks (GIF89a, sections 20 to 27)."""


@dataclass(frozen=True)
class Seen:
    """The decoded frames of one picture."""

    frames: Pixels
    """uint8 [n, size, size, 3], RGB, letterboxed; n = 1 for a still picture."""
    width: int
    """Of the picture in px, after its EXIF orientation is applied."""
    height: int
    missed: int = 0
    """Frames that were selected but not decoded: the time was up, or the file ends early."""


def frames(
    data: bytes, size: int, background: int = 128, caps: Caps = CAPS, count: int = 8, seconds: float = 5.0
) -> Seen:
    """Decode the first frame of a picture and others spread evenly over it.

    Args:
        data: a PNG, JPEG, GIF or WebP file.
        size: side of the letterboxed frames, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.
        caps: what is refused before it is decoded.
        count: frames to decode at most.
        seconds: time limit, checked between frames. The first frame is always decoded.

    Raises:
        PictureError: `too_large` or `corrupt` if not even the first frame can be decoded; no other exception.
    """
    deadline = time.monotonic() + seconds
    image = open_checked(data, caps)
    decoded: list[Pixels] = []
    selected_count = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height = _oriented_size(image)
            present, announced = _count_frames(data, image, caps, deadline)
            selected = {round(place) for place in np.linspace(0, present - 1, min(present, count))}
            # A file that announces more frames than it holds counts as one missed frame.
            selected_count = len(selected) + (announced > present)
            decoded.append(letterbox(image, size, background))
            for place in range(1, present):
                if time.monotonic() > deadline:
                    break
                # A frame holds only what changed since the frame before it, so every frame must be decoded.
                image.seek(place)
                image.load()
                if place in selected:
                    decoded.append(letterbox(image, size, background))
    except PictureError:
        raise
    except Exception as error:  # a malformed file can make a decoder raise nearly anything
        if not decoded:
            raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error
    return Seen(np.stack(decoded), width, height, selected_count - len(decoded))


def _oriented_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation: 5 to 8 turn the picture by 90 degrees."""
    turned = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def _count_frames(data: bytes, image: Image.Image, caps: Caps, deadline: float) -> tuple[int, int]:
    """Frames that the file holds, and frames that its header announces.

    Raises:
        PictureError: `too_large`, if a frame is over the cap.
    """
    if image.format == "GIF":
        return _count_gif_frames(data, caps, deadline)
    # Pillow sees the second picture that phones append to a JPEG as a frame, but viewers do not show it.
    announced = int(getattr(image, "n_frames", 1)) if image.format in ("PNG", "WEBP") else 1
    if image.format == "PNG" and announced > 1:
        return max(1, min(announced, _count_png_frames(data))), announced
    return announced, announced


def _count_gif_frames(data: bytes, caps: Caps, deadline: float) -> tuple[int, int]:
    """Count the frames of a GIF by walking its blocks, without decoding them.

    A frame may extend the picture beyond the size in the header, so the caps are checked for each frame.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    at, count = 13 + _palette_bytes(data[10]), 0
    try:
        while (kind := data[at]) != GIF_TRAILER:
            at += 1
            if kind == GIF_FRAME:
                count += 1
                left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at)
                width, height = max(width, left + across), max(height, top + down)
                if width * height > caps.max_pixels:
                    raise PictureError("too_large", f"{width}x{height} pixels, over the cap of {caps.max_pixels}")
                if time.monotonic() > deadline:
                    return count, count + 1
                at += 10 + _palette_bytes(flags)
            elif kind == GIF_EXTENSION:
                at += 1
            else:
                continue  # decoders skip unknown bytes between blocks
            while data[at]:  # the block's data: pieces with their length in front, the last one empty
                at += 1 + data[at]
            at += 1
    except (IndexError, struct.error):
        pass  # the file ends early: the frames found so far are decoded, and the last one may fail
    return max(1, count), count


def _palette_bytes(flags: int) -> int:
    """Size of a GIF palette, from the flags byte of the block before it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _count_png_frames(data: bytes) -> int:
    """Frames of an animated PNG, from its chunks (fcTL: a frame; an IDAT before them: a still picture of its own)."""
    at, count, default_image = 8, 0, False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        count += kind == b"fcTL"
        default_image |= kind == b"IDAT" and not count
        at += 12 + length
    return count + default_image
