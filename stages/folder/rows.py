"""A folder's pictures -> the rows of a Philomena board's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from stages.folder.contents import Contents, Image
from stages.philomena import addresses, board, tags
from stages.philomena.board import Row

UPLOADED = datetime(2000, 1, 1)  # noqa: DTZ001 (a board's times are UTC without a zone)
"""Of every picture: when its file was written says nothing about it, and differs between copies of a folder."""


def tables(contents: Contents, counts: Counter[str]) -> dict[str, Iterator[Row]]:
    """Table -> its rows, in an order that satisfies the foreign keys; none is in memory as a whole.

    Args:
        contents: of the folder.
        counts: tag -> number of pictures.
    """
    numbers = {tag: number for number, tag in enumerate(sorted(counts), 1)}
    return {
        "images": (image_row(image) for image in contents.images()),
        "tags": (tag_row(tag, number, counts[tag]) for tag, number in numbers.items()),
        "image_taggings": (
            {"image_id": image.id, "tag_id": numbers[tag]} for image in contents.images() for tag in image.tags
        ),
        "image_intensities": (intensities_row(image) for image in contents.images()),
        "image_sources": (
            {"image_id": image.id, "source": image.source} for image in contents.images() if image.source
        ),
    }


def image_row(image: Image) -> Row:
    """A row of `images`."""
    measured = image.measured
    width, height = measured.width, measured.height
    path = addresses.picture_path(UPLOADED, image.id, measured.format, width, height, "full")
    return {
        "id": image.id,
        "created_at": UPLOADED,
        "updated_at": UPLOADED,
        "image_width": width,
        "image_height": height,
        "image_size": measured.size,
        "image_aspect_ratio": width / height,
        "image_mime_type": f"image/{measured.format}",
        "image_format": measured.format,
        "image_name": image.path,
        "version_path": f"{path.rpartition('/')[0]}/",
        "image_sha512_hash": measured.sha512,
        "image_orig_sha512_hash": measured.sha512,
    }


def intensities_row(image: Image) -> Row:
    """A row of `image_intensities`."""
    measured = image.measured
    return {
        "image_id": image.id,
        "nw_intensity": measured.nw,
        "ne_intensity": measured.ne,
        "sw_intensity": measured.sw,
        "se_intensity": measured.se,
    }


def tag_row(tag: str, number: int, images: int) -> Row:
    """A row of `tags`."""
    category = "rating" if tag in tags.RATINGS else "origin" if tag.startswith(tags.PREFIXES) else None
    return {"id": number, "image_count": images, "name": tag, "slug": board.slug(tag), "category": category}
