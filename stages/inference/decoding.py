"""Picture bytes -> pixels. Download, split, train, test and the bot all decode here, so a model always sees the same.

The steps, in this order:

1. `open_picture` leaves out metadata (`stages.inference.containers`), reads the header and refuses a file over the
   caps. A small file can hold a huge picture, so the caps must apply before anything is decoded.
2. `first_frame` decodes the first frame, applies its EXIF orientation and its transparent colour.
3. `letterbox` removes transparency and scales the frame into a square.

What is damaged or missing is shown as a browser shows it: up to the damage. Only a file that shows nothing is an error.
It needs only Pillow and numpy, because the bot has no torch and no pandas.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError
from PIL import TiffImagePlugin as _  # noqa: F401 (with the next, formats that Pillow does not know at first)
from PIL import WebPImagePlugin as __  # noqa: F401

from stages.inference import containers
from stages.inference.containers import Container
from stages.workspace.errors import PictureError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""The formats that are opened, by Pillow's names. Untrusted bytes never reach any other decoder."""
EXIF_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what undoes it."""
STRIP = 256
"""Rows of a large picture that are converted and shrunk at a time."""
BLANK, MAX_BLANK = 128, 0.1
"""Grey level of what a damaged picture lacks, and the share of its rows that a downloaded picture may lack."""
PIXEL_BYTES = 10
"""Memory that decoding a pixel takes, of formats that `containers` does not know: AVIF needs most."""

# Its threads would outnumber the cores, and reserve memory that the limit of `stages.inference.processes` counts.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

Pixels = NDArray[np.uint8]


class _Lenient(threading.local):
    """Pillow's switch for damaged files, for each thread apart: elsewhere, an error must stay one."""

    on = False

    def __bool__(self) -> bool:
        return self.on


_lenient = _Lenient()
ImageFile.LOAD_TRUNCATED_IMAGES = _lenient  # type: ignore[assignment] # Pillow asks only whether it is true


@dataclass(frozen=True)
class Caps:
    """Limits that a picture must keep to be decoded."""

    max_bytes: int = 25_000_000
    """Size of the file."""
    max_pixels: int = 50_000_000
    """Width times height of one frame."""
    max_memory: int = 2**62
    """Bytes that decoding takes: see `stages.inference.containers.Container.memory`."""


CAPS = Caps()
"""For untrusted pictures: 50 megapixels take about 250 MB of memory while they are decoded."""
UNCAPPED = Caps(max_bytes=2**62, max_pixels=2**62)
"""For pictures in the shards: the download stage has applied `download.max_bytes` and `download.max_pixels` to them."""


@contextlib.contextmanager
def picture_errors() -> Iterator[None]:
    """Turn whatever a decoder raises into a `PictureError`: a malformed file can make it raise nearly anything."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on, and raises from 179 megapixels on. `Caps` replace the warning.
            warnings.simplefilter("ignore")
            yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError("too_large", str(error)) from error
    except MemoryError as error:
        raise PictureError("too_large", "decoding takes more memory than it may") from error
    except UnidentifiedImageError as error:
        raise PictureError("corrupt", "no readable picture (UnidentifiedImageError)") from error
    except Exception as error:
        raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error


def open_picture(data: bytes, caps: Caps) -> tuple[Container, ImageFile.ImageFile]:
    """Open a picture and check its size; its pixels are not decoded yet.

    Raises:
        PictureError: `too_large` (over a cap), `corrupt` (not a picture in one of `FORMATS`), or `timed_out` (a JPEG
            that is made to take long).
    """
    if len(data) > caps.max_bytes:
        raise PictureError("too_large", f"{len(data)} bytes, over the cap of {caps.max_bytes}")
    with picture_errors():
        container = containers.read(data)
        _check_size(container.width, container.height, container.memory, caps)
        if container.empty:
            raise PictureError("corrupt", "the file holds no pixels")
        image = Image.open(io.BytesIO(container.data), formats=FORMATS)
        unknown = 0 if container.width else image.width * image.height * PIXEL_BYTES
        _check_size(*image.size, unknown, caps)
        return container, image


def _check_size(width: int, height: int, memory: int, caps: Caps) -> None:
    if width * height > caps.max_pixels:
        raise PictureError("too_large", f"{width}x{height} pixels, over the cap of {caps.max_pixels}")
    if memory > caps.max_memory:
        raise PictureError("too_large", f"decoding takes {memory} bytes of memory, over the cap of {caps.max_memory}")


def first_frame(data: bytes, side: int, caps: Caps = CAPS, background: int = BLANK) -> Image.Image:
    """Decode the first frame of a picture and apply its EXIF orientation.

    Args:
        data: a file in one of `FORMATS`.
        side: longer side that is wanted, px. A large JPEG is decoded at a fraction of its size, never below this.
        caps: what is refused before it is decoded.
        background: grey level (0 to 255) of what a cut file lacks.

    Raises:
        PictureError: `too_large`, `corrupt` or `timed_out`; no other exception, whatever the bytes are.
    """
    container, image = open_picture(data, caps)
    with picture_errors():
        return decode_first(container, image, side, background)[1]


def check(data: bytes, caps: Caps) -> tuple[str, int, int]:
    """Decode a picture's first frame, and throw it away: what passes here, every caller of this module can decode.

    Returns:
        Format in lower case, and width and height in px as the file says, whatever its orientation.

    Raises:
        PictureError: as `checked_frame`.
    """
    kind, size = checked_frame(data, caps)[:2]
    return kind, *size


def checked_frame(data: bytes, caps: Caps) -> tuple[str, tuple[int, int], Image.Image]:
    """As `check`, with the first frame at full size, turned upright.

    A picture that lacks much is refused here, although a browser shows the rest: a host that cuts files is no source.

    Raises:
        PictureError: as `first_frame`.
    """
    container, opened = open_picture(data, caps)
    kind, size = (opened.format or "").lower(), opened.size
    with picture_errors():
        image, frame = decode_first(container, opened, max(size), BLANK)  # at full size: no caller needs more
        letterbox(frame, 1, BLANK)
        if (container.cut or image is not opened) and (share := _blank_share(frame)) > MAX_BLANK:
            raise PictureError("corrupt", f"{share:.0%} of it is missing")
    return kind, size, frame


def _blank_share(image: Image.Image) -> float:
    """Share of a damaged picture's rows, at its end, that were not decoded."""
    rows = Image.alpha_composite(Image.new("RGBA", image.size, (BLANK, BLANK, BLANK, 255)), image.convert("RGBA"))
    decoded = (np.asarray(rows)[..., :3] != BLANK).any(axis=(1, 2))
    return float(np.argmax(decoded[::-1])) / len(decoded) if decoded.any() else 1.0


def decode_first(
    container: Container, image: ImageFile.ImageFile, side: int, background: int
) -> tuple[ImageFile.ImageFile, Image.Image]:
    """Decode what `open_picture` returned.

    Returns:
        The opened picture, for further frames, and its first frame, turned upright.

    Raises:
        Exception: whatever Pillow raises; see `picture_errors`.
    """
    # Draft mode lets libjpeg decode a large JPEG at 1/2, 1/4 or 1/8 of its size (never below `side`), which takes a
    # fraction of the time and memory. Other formats ignore it.
    image.draft("RGB", (side, side))
    key = _wide_colour_key(container, image)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        image = _load_damaged(container, side, background)
    frame = _with_alpha(image, key) if key is not None else image
    return image, upright(frame)


def _load_damaged(container: Container, side: int, background: int) -> ImageFile.ImageFile:
    """Decode as much of a damaged picture as there is.

    Raises:
        PictureError: `corrupt` if that is nothing.
    """
    _lenient.on = True
    try:
        image = Image.open(io.BytesIO(container.data), formats=FORMATS)
        image.draft("RGB", (side, side))
        blank = [(0, 0)]
        if image.mode in ("L", "RGB") and image.format != "GIF":
            # Pillow would leave it black; a browser shows the page behind it.
            blank = [(background, background)]
            image.im = Image.new(image.mode, image.size, (background,) * len(image.getbands())).im
        image.load()
    finally:
        _lenient.on = False
    extrema = np.array(image.getextrema()).reshape(-1, 2).tolist()
    if all(tuple(band) in blank for band in extrema):
        raise PictureError("corrupt", "nothing of it can be decoded")
    return image


def upright(image: Image.Image) -> Image.Image:
    """A decoded frame as its EXIF orientation asks for."""
    turn = TURNS.get(exif_orientation(image))
    return image if turn is None else image.transpose(turn)


def exif_orientation(image: Image.Image) -> int:
    """A picture's orientation, 1 to 8, for whoever has to apply it."""
    if image.format == "TIFF":  # Pillow applies it
        return 1
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # malformed, in a format that `containers` does not know
        return 1


def _wide_colour_key(container: Container, image: ImageFile.ImageFile) -> NDArray[np.bool_] | None:
    """Where a PNG of 16-bit colours has exactly its transparent one: bool [height, width].

    Pillow keeps the upper eight bits of each, which several colours share. So the lower ones are decoded, too.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None or len(image.tile) != 1 or image.tile[0].args != "RGB;16B":
        return None
    matches = np.ones((image.height, image.width), np.bool_)
    for rawmode, shift in (("RGB;16B", 8), ("RGB;16L", 0)):
        again = Image.open(io.BytesIO(container.data), formats=["PNG"])
        again.tile = [again.tile[0]._replace(args=rawmode)]
        with contextlib.suppress(OSError):  # a damaged one matches as far as it goes
            again.load()
        matches &= (np.asarray(again) == [value >> shift & 255 for value in key]).all(axis=2)
    return matches


def _with_alpha(image: Image.Image, transparent: NDArray[np.bool_]) -> Image.Image:
    """A picture that is transparent there."""
    copy = image.copy()
    copy.info.pop("transparency", None)
    copy.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    return copy


def letterbox(image: Image.Image, size: int, background: int) -> Pixels:
    """Scale a decoded frame to fit a square, with its aspect ratio kept.

    Args:
        image: from `first_frame`.
        size: side of the square, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.

    Returns:
        uint8 array [size, size, 3], RGB, with the picture centred.
    """
    if image.mode.startswith("I"):
        image = grey_of_16_bits(image)
    scale = size / max(image.size)
    box = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Palettes and colour keys become a real alpha channel. Colours are multiplied with alpha before they are scaled, so
    # the invisible colour of transparent pixels (mostly black) leaves no dark edges.
    modes = ("RGBA", "RGBa") if image.has_transparency_data else ("RGB",)
    image = _scaled(image, box, modes).convert(modes[0])
    square = Image.new("RGB", (size, size), (background,) * 3)
    corner = ((size - box[0]) // 2, (size - box[1]) // 2)
    square.paste(image.convert("RGB"), corner, image.getchannel("A") if image.mode == "RGBA" else None)
    return np.asarray(square)


def grey_of_16_bits(image: Image.Image) -> Image.Image:
    """A picture of 16-bit grey, in 8-bit grey. Pillow's own conversion clips everything above 255 to white."""
    grey = image.point(lambda value: value / 257).convert("L")  # 65535 / 257 = 255
    key = grey.info.pop("transparency", None)
    return grey if key is None else _with_alpha(grey, np.asarray(image) == key)


def _scaled(image: Image.Image, box: tuple[int, int], modes: tuple[str, ...]) -> Image.Image:
    """`image.convert(mode)` for each mode, then `.resize(box, BILINEAR, reducing_gap=2.0)`: the same pixels.

    A large picture is first shrunk by an integer factor, which is faster, with no visible difference. It is converted
    and shrunk strip by strip here: a copy of all of it in each mode would take a multiple of its memory.
    """
    if image.size == box:
        modes = modes[:1]
    across, down = (int(side / wanted / 2.0) or 1 for side, wanted in zip(image.size, box, strict=True))
    if across == down == 1:
        return _converted(image, modes).resize(box, Image.Resampling.BILINEAR)
    small = Image.new(modes[-1], (-(-image.width // across), -(-image.height // down)))
    rows = max(1, STRIP // down) * down
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_converted(strip, modes).reduce((across, down)), (0, top // down))
    whole = (0, 0, image.width / across, image.height / down)
    return small.resize(box, Image.Resampling.BILINEAR, whole)


def _converted(image: Image.Image, modes: tuple[str, ...]) -> Image.Image:
    for mode in modes:
        image = image if image.mode == mode else image.convert(mode)
    return image


def pixels(data: bytes, size: int, background: int = BLANK, caps: Caps = CAPS) -> Pixels:
    """Decode and letterbox the first frame of a picture.

    Args:
        data: a file in one of `FORMATS`.
        size: side of the square, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.
        caps: what is refused before it is decoded.

    Returns:
        uint8 array [size, size, 3], RGB.

    Raises:
        PictureError: `too_large`, `corrupt` or `timed_out`; no other exception, whatever the bytes are.
    """
    with picture_errors():
        return letterbox(first_frame(data, size, caps, background), size, background)
