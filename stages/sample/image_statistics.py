"""Image statistics that a board stores: size, hash, and the brightness of the four quadrants."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from stages.philomena import intensities

PROCESSES = 2
HUGE = 20_000_000
"""Pixels above which a reduced copy is made: scaling down 600 million pixels takes ten seconds for each version."""
REDUCED_SIDE = 2048
"""Least length of a reduced copy's longer side, in px."""


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
        return ImageStatistics(width, height, len(data), hashlib.sha512(data).hexdigest(), intensities.corners(shown))


def _reduce(image: Image.Image, target: Path) -> Image.Image:
    """Save and return a copy scaled down by an integer factor, with a longer side of at least `REDUCED_SIDE`."""
    factor = max(1, max(image.size) // REDUCED_SIDE)
    copy = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, intensities.STRIP // image.width // factor) * factor
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(image.height, start + rows)))
        copy.paste(strip.convert("RGBA").reduce(factor), (0, start // factor))
    target.parent.mkdir(parents=True, exist_ok=True)
    copy.save(target, compress_level=1)
    return copy
