"""Where a Philomena board's picture host keeps an image: the version rule, unpadded dates, extensions.

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
"""Version -> the box, width and height in px, that it is scaled into. `full` is the original and has none."""


def canonical_format(image_format: str) -> str:
    """The format of an image's row, mixed-case in old rows, as one of png, jpeg, gif, svg, webm."""
    lower = image_format.lower()
    return "jpeg" if lower == "jpg" else lower


def served_format(image_format: str) -> str:
    """The format of what the host serves for an image: svg versions are png, and so is the still of a video."""
    canonical = canonical_format(image_format)
    return "png" if canonical in ("svg", "webm") else canonical


def has_version(width: Size, height: Size, version: str) -> Size:
    """Whether the host has a version of an image of this size, in px; of arrays, of each image.

    A version exists only where the image is wider or higher than its box.
    """
    box_width, box_height = (0, 0) if version == "full" else VERSIONS[version]
    return (width > box_width) | (height > box_height)


def served_version(width: int, height: int, version: str) -> str:
    """`version` if the host has it for an image of this size (px), else `full`."""
    return version if has_version(width, height, version) else "full"


def picture_name(image_format: str, version: str) -> str:
    """The file of a version that the host has, or of `full`, as `medium.png`. `image_format`: as the dump has it."""
    canonical = canonical_format(image_format)
    if canonical == "webm":
        return "rendered.png"  # the still: versions of a video are videos
    # The extension is the dump's own but for its case: jpg and jpeg both occur. An svg's picture is always rendered.
    if canonical == "svg":
        return f"{'rendered' if version == 'full' else version}.png"
    return f"{version}.{image_format.lower()}"


def picture_path(
    created_at: datetime, image_id: int, image_format: str, width: int, height: int, version: str = "medium"
) -> str:
    """Path below the root of the picture that stands for an image, as `2012/1/2/3/medium.png`.

    Args:
        created_at: UTC, as the dump has it.
        image_id: the image's.
        image_format: as the dump has it, in any case.
        width: of the original, in px.
        height: of the original, in px.
        version: a key of `VERSIONS`, or `full`.
    """
    folder = f"{created_at.year}/{created_at.month}/{created_at.day}/{image_id}"
    return f"{folder}/{picture_name(image_format, served_version(width, height, version))}"


def picture_url(
    root: str,
    created_at: datetime,
    image_id: int,
    image_format: str,
    width: int,
    height: int,
    version: str = "medium",
) -> str:
    """Address of the picture that stands for an image; see `picture_path`. `root` is as https://derpicdn.net/img."""
    return f"{root.rstrip('/')}/{picture_path(created_at, image_id, image_format, width, height, version)}"
