"""Image statistics that a board stores: size, hash, and the brightness of the four quadrants."""

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
"""Weights of red, green and blue in BT.709 luma."""
HUGE = 20_000_000
"""Pixels above which a reduced copy is made: scaling down 600 million pixels takes ten seconds for each version."""
REDUCED_SIDE = 2048
"""Least length of a reduced copy's longer side, in px."""
STRIP = 1_000_000
"""Pixels to process at a time: they fit a cache, and a huge picture is in memory once and not four times."""


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one picture."""

    width: int
    height: int
    size: int
    """In bytes."""
    sha512: str
    corners: tuple[float, float, float, float]
    """Mean BT.709 luma of the quadrants nw, ne, sw, se on a white background, 0 to 255."""


def measure_all(folder: Path, names: Sequence[str], reduced: Path) -> dict[str, ImageStatistics]:
    """Measure the pictures in `folder` in two processes, and write reduced copies of the huge ones to `reduced`."""
    # The largest first, so that none is left for one process at the end.
    order = sorted(names, key=lambda name: (-area(folder / name), name))
    measured: dict[str, ImageStatistics] = {}
    # Pillow's limit on pixels is a global setting: lift it in subprocesses only. They are spawned, because a forked
    # child could inherit a lock that another thread holds.
    with multiprocessing.get_context("spawn").Pool(PROCESSES, lift_pixel_limit) as pool:
        results = pool.imap_unordered(partial(_measure_named, folder, reduced), order)
        for name, statistics in tqdm(results, total=len(order), desc="measure", unit="picture", disable=None):
            measured[name] = statistics
    return measured


def area(file: Path) -> int:
    """Width times height, px, from a PNG's header."""
    with file.open("rb") as opened:
        header = opened.read(24)
    return int.from_bytes(header[16:20]) * int.from_bytes(header[20:24])


def lift_pixel_limit() -> None:
    """Prepare a subprocess for pictures of any size, which are not hostile: the packages' checksums were verified."""
    Image.MAX_IMAGE_PIXELS = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process


def _measure_named(folder: Path, reduced: Path, name: str) -> tuple[str, ImageStatistics]:
    return name, measure(folder / name, reduced / name)


def measure(file: Path, reduced: Path) -> ImageStatistics:
    """Measure one picture; write a reduced copy to `reduced` if it is huge."""
    data = file.read_bytes()
    with Image.open(file) as image:
        image.load()
        width, height = image.size
        # The brightness of the reduced copy is nearly the same, and takes a quarter less time.
        shown = _reduce(image, reduced) if width * height > HUGE else image
        return ImageStatistics(width, height, len(data), hashlib.sha512(data).hexdigest(), _corners(shown))


def _corners(image: Image.Image) -> tuple[float, float, float, float]:
    """Mean luma of the quadrants. The sums are of integers, so the strips' size does not change the result."""
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
    """Sum of each band of a premultiplied RGBa picture, and its number of pixels."""
    histogram = np.array(part.histogram(), dtype=np.int64).reshape(4, 256)
    return (*(histogram @ np.arange(256)).tolist(), part.width * part.height)


def _reduce(image: Image.Image, target: Path) -> Image.Image:
    """Save and return a copy scaled down by an integer factor, with a longer side of at least `REDUCED_SIDE`."""
    factor = max(1, max(image.size) // REDUCED_SIDE)
    copy = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, STRIP // image.width // factor) * factor
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(image.height, start + rows)))
        copy.paste(strip.convert("RGBA").reduce(factor), (0, start // factor))
    target.parent.mkdir(parents=True, exist_ok=True)
    copy.save(target, compress_level=1)
    return copy
