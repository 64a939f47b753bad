"""What a board knows of a picture's pixels: its size, its hash, and how light its corners are."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

PROCESSES = 2
LUMA = (0.2126, 0.7152, 0.0722)
"""BT.709's weights of red, green and blue."""
HUGE = 20_000_000
"""Pixels above which a handy copy is made: of 600 million pixels each smaller version would cost ten seconds."""
HANDY_SIDE = 2048
STRIP = 4_000_000
"""Pixels that are worked on at once, so that a huge picture is in memory once, and not four times."""


@dataclass(frozen=True)
class Measures:
    """Of one picture."""

    width: int
    height: int
    size: int
    """Bytes."""
    sha512: str
    corners: tuple[float, float, float, float]
    """Mean BT.709 luma of the quadrants nw, ne, sw, se on a white page, 0 to 255."""


def measured(folder: Path, names: Sequence[str], handy: Path) -> dict[str, Measures]:
    """Measure the pictures in `folder`, in two processes; put handy copies of the huge ones under `handy`."""
    largest_first = sorted(names, key=lambda name: (-_area(folder / name), name))
    # The two largest take 2.5 GB each: every other of the first comes later, so that they do not meet.
    order = largest_first[:16:2] + largest_first[1:16:2] + largest_first[16:]
    found: dict[str, Measures] = {}
    # Processes of their own, started afresh: Pillow's guard against huge pictures is lifted in them and nowhere else.
    with multiprocessing.get_context("spawn").Pool(PROCESSES, _lift_guard) as pool:
        results = pool.imap_unordered(partial(_named, folder, handy), order)
        for name, measures in tqdm(results, total=len(order), desc="measure", unit="picture", disable=None):
            found[name] = measures
    return found


def _area(file: Path) -> int:
    """Width times height, from a PNG's header."""
    with file.open("rb") as opened:
        header = opened.read(24)
    return int.from_bytes(header[16:20]) * int.from_bytes(header[20:24])


def _lift_guard() -> None:
    Image.MAX_IMAGE_PIXELS = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process


def _named(folder: Path, handy: Path, name: str) -> tuple[str, Measures]:
    return name, measure(folder / name, handy / name)


def measure(file: Path, handy: Path) -> Measures:
    """Measure one picture; a huge one leaves a handy copy."""
    data = file.read_bytes()
    with Image.open(file) as image:
        image.load()
        if image.width * image.height > HUGE:
            _shrink(image, handy)
        return Measures(image.width, image.height, len(data), hashlib.sha512(data).hexdigest(), _corners(image))


def _corners(image: Image.Image) -> tuple[float, float, float, float]:
    """Mean luma of the quadrants. Sums of whole numbers, so it does not matter how the picture is cut up."""
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
    """Sums of the bands of a premultiplied picture, and its number of pixels."""
    histogram = np.array(part.histogram(), dtype=np.int64).reshape(4, 256)
    return (*(histogram @ np.arange(256)).tolist(), part.width * part.height)


def _shrink(image: Image.Image, target: Path) -> None:
    """Save a copy whose longer side is a whole fraction of the picture's, and at least `HANDY_SIDE`."""
    factor = max(1, max(image.size) // HANDY_SIDE)
    copy = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, STRIP // image.width // factor) * factor
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(image.height, start + rows)))
        copy.paste(strip.convert("RGBA").reduce(factor), (0, start // factor))
    target.parent.mkdir(parents=True, exist_ok=True)
    copy.save(target, compress_level=1)
