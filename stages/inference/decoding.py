"""Picture bytes -> pixels. Download, split, train, test and the bot all decode here, so a model always sees the same.

The steps, in this order:

1. `open_checked` reads the header and refuses a file over the caps. A small file can hold a huge picture, so the caps
   must apply before anything is decoded.
2. `letterbox` decodes the first frame, applies its EXIF orientation, removes transparency, and scales it into a square.

It needs only Pillow and numpy, because the bot has no torch and no pandas.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from stages.workspace.errors import PictureError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
"""The formats that are opened, by Pillow's names. Untrusted bytes never reach any other decoder."""

# The default, but some libraries change it: a truncated picture would then be partly grey instead of an error.
ImageFile.LOAD_TRUNCATED_IMAGES = False

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Caps:
    """Limits that a picture must keep to be decoded."""

    max_bytes: int = 25_000_000
    """Size of the file."""
    max_pixels: int = 50_000_000
    """Width times height of one frame."""


CAPS = Caps()
"""For untrusted pictures: 50 megapixels take about 200 MB of memory while they are decoded."""
UNCAPPED = Caps(max_bytes=2**62, max_pixels=2**62)
"""For pictures in the shards: the download stage has applied `download.max_bytes` and `download.max_pixels` to them."""


def open_checked(data: bytes, caps: Caps) -> Image.Image:
    """Open a picture and check its size; its pixels are not decoded yet.

    Raises:
        PictureError: `too_large` (over a cap), or `corrupt` (not a picture in one of `FORMATS`).
    """
    if len(data) > caps.max_bytes:
        raise PictureError("too_large", f"{len(data)} bytes, over the cap of {caps.max_bytes}")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on, and raises from 179 megapixels on. `caps` replace the warning.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError("too_large", str(error)) from error
    except Exception as error:  # a malformed file can make a decoder raise nearly anything
        raise PictureError("corrupt", f"no readable picture ({type(error).__name__})") from error
    width, height = image.size
    if width * height > caps.max_pixels:
        raise PictureError("too_large", f"{width}x{height} pixels, over the cap of {caps.max_pixels}")
    return image


def letterbox(image: Image.Image, size: int, background: int) -> Pixels:
    """Decode an opened picture and scale it to fit a square, with its aspect ratio kept.

    Args:
        image: from `open_checked`; of an animation, the current frame.
        size: side of the square, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.

    Returns:
        uint8 array [size, size, 3], RGB, with the picture centred.

    Raises:
        Exception: whatever Pillow raises for malformed data; `pixels` turns it into a `PictureError`.
    """
    # Draft mode lets libjpeg decode a large JPEG at 1/2, 1/4 or 1/8 of its size (never below `size`), which takes a
    # fraction of the time and memory. Other formats ignore it.
    image.draft("RGB", (size, size))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips everything above 255 to white. 65535 / 257 = 255.
        image = image.point(lambda value: value / 257).convert("L")
    # Palettes and colour keys become a real alpha channel. For RGBA, Pillow multiplies colours with alpha while it
    # resizes, so the invisible colour of transparent pixels (mostly black) leaves no dark edges.
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    scale = size / max(image.size)
    box = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # `reducing_gap` shrinks large pictures by an integer factor first: faster, with no visible difference.
    image = image.resize(box, Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = Image.new("RGB", (size, size), (background,) * 3)
    corner = ((size - box[0]) // 2, (size - box[1]) // 2)
    square.paste(image.convert("RGB"), corner, image.getchannel("A") if image.mode == "RGBA" else None)
    return np.asarray(square)


def pixels(data: bytes, size: int, background: int = 128, caps: Caps = CAPS) -> Pixels:
    """Decode and letterbox the first frame of a picture.

    Args:
        data: a PNG, JPEG, GIF or WebP file.
        size: side of the square, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.
        caps: what is refused before it is decoded.

    Returns:
        uint8 array [size, size, 3], RGB.

    Raises:
        PictureError: `too_large` or `corrupt`; no other exception, whatever the bytes are.
    """
    image = open_checked(data, caps)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return letterbox(image, size, background)
    except Exception as error:  # a malformed file can make a decoder raise nearly anything
        raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error
