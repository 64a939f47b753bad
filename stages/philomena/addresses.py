"""Addresses on a Philomena board's picture host: which versions exist, dates without padding, file extensions.

Source: philomena-dev/philomena, `lib/philomena/images/thumbnailer.ex` and `lib/philomena_web/views/image_view.ex`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from numpy.typing import NDArray

Size = TypeVar("Size", int, NDArray[Any])

VERSIONS: dict[str, tuple[int, int]] = {
    "thumb_tiny": (50, 50),
    "thumb_small": (150, 150),
    "thumb": (250, 250),
    "small": (320, 240),
    "medium": (800, 600),
    "large": (1280, 1024),
    "tall": (1024, 4096),
}
"""Version -> the box that it is scaled into, width and height in px. `full`, the original, has none."""


def canonical_format(image_format: str) -> str:
    """An image's format as one of png, jpeg, gif, svg, webm; the dump also has `jpg`, and capitals in old rows."""
    lower = image_format.lower()
    return "jpeg" if lower == "jpg" else lower


def served_format(image_format: str) -> str:
    """The format that the host serves an image in: svg is rendered as png, and so is the still of a video."""
    canonical = canonical_format(image_format)
    return "png" if canonical in ("svg", "webm") else canonical


def has_version(width: Size, height: Size, version: str) -> Size:
    """Whether the host has a version of an image of this size in px; elementwise for arrays.

    A version exists only if the image is wider or higher than the version's box.
    """
    box_width, box_height = (0, 0) if version == "full" else VERSIONS[version]
    return (width > box_width) | (height > box_height)


def served_version(width: int, height: int, version: str) -> str:
    """`version` if the host has it for an image of this size in px, else `full`."""
    return version if has_version(width, height, version) else "full"


def picture_name(image_format: str, version: str) -> str:
    """File name of an existing version or of `full`, for example `medium.png`. `image_format` is the dump's value."""
    canonical = canonical_format(image_format)
    if canonical == "webm":
        return "rendered.png"  # the still image: versions of a video are videos
    if canonical == "svg":
        return f"{'rendered' if version == 'full' else version}.png"
    # The extension is the dump's value in lower case, not the canonical format: both jpg and jpeg occur.
    return f"{version}.{image_format.lower()}"


def picture_path(
    created_at: datetime, image_id: int, image_format: str, width: int, height: int, version: str = "medium"
) -> str:
    """Path below the host's root of the picture to use for an image, for example `2012/1/2/3/medium.png`.

    Args:
        created_at: the dump's value, which is UTC.
        image_id: the dump's value.
        image_format: the dump's value, in any case.
        width: of the original, in px.
        height: of the original, in px.
        version: a key of `VERSIONS`, or `full`; an image that is too small for the version has `full` instead.
    """
    # Months and days without leading zeros, which is why strftime will not do.
    folder = f"{created_at.year}/{created_at.month}/{created_at.day}/{image_id}"
    return f"{folder}/{picture_name(image_format, served_version(width, height, version))}"
