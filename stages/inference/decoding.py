"""Picture bytes -> pixels: the one way that training, testing and serving see a picture. Only Pillow and numpy."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from stages.workspace.errors import PictureError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
"""Pillow's names of the formats that are opened; any other decoder is never reached by outside bytes."""

ImageFile.LOAD_TRUNCATED_IMAGES = False
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Caps:
    """What is refused before it is decoded."""

    max_bytes: int = 25_000_000
    max_pixels: int = 50_000_000
    """Of one frame."""


def open_checked(data: bytes, caps: Caps) -> Image.Image:
    """Read a picture's header, refusing what is over a cap; pixels are not decoded yet.

    Raises:
        PictureError: `too_large` (bytes or pixels) or `corrupt` (no known picture).
    """
    if len(data) > caps.max_bytes:
        raise PictureError("too_large", f"{len(data)} bytes, over the cap of {caps.max_bytes}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own cap stands in for Pillow's warning about large pictures
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError("too_large", str(error)) from error
    except Exception as error:  # a hostile file can make a decoder raise nearly anything
        raise PictureError("corrupt", f"no readable picture ({type(error).__name__})") from error
    width, height = image.size
    if width * height > caps.max_pixels:
        raise PictureError("too_large", f"{width}x{height} pixels, over the cap of {caps.max_pixels}")
    return image


def letterbox(image: Image.Image, size: int, background: int) -> Pixels:
    """Scale into a `size` x `size` square with the aspect kept, centred on grey `background`.

    Returns:
        uint8 array [size, size, 3], RGB. Transparent parts show the background.
    """
    image.draft("RGB", (size, size))  # a JPEG is decoded at the smallest scale that is not below `size`
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        image = image.point(lambda value: value / 257).convert("L")
    # With alpha, Pillow resizes premultiplied: no dark fringes.
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    scale = size / max(image.size)
    box = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(box, Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = Image.new("RGB", (size, size), (background,) * 3)
    corner = ((size - box[0]) // 2, (size - box[1]) // 2)
    square.paste(image.convert("RGB"), corner, image.getchannel("A") if image.mode == "RGBA" else None)
    return np.asarray(square)


def pixels(data: bytes, size: int, background: int = 128, caps: Caps = Caps()) -> Pixels:
    """Decode a picture's first frame and letterbox it: uint8 array [size, size, 3], RGB.

    Raises:
        PictureError: `too_large` or `corrupt`; never anything else, whatever the bytes are.
    """
    image = open_checked(data, caps)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return letterbox(image, size, background)
    except Exception as error:
        raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error
