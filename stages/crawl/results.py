"""A picture of the catalogue, and the result of downloading it."""

from __future__ import annotations

from typing import NamedTuple


class WantedPicture(NamedTuple):
    """A picture of the catalogue."""

    image_id: int
    url: str
    sha512: str
    """Of the original, from the dump, or empty. If the board replaces an image's file, it is another picture."""


class DownloadResult(NamedTuple):
    """The result of downloading one picture."""

    status: str
    """`ok`, `missing`, `corrupt`, `too_large`, `timed_out` (in decoding), `refused`, or `gave_up`."""
    http_status: int | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    sha256: str | None = None
    file: str | None = None
    """The file in the store that has the bytes: a segment or a finished shard."""
    start: int | None = None
    """Offset of the first byte in a segment, or row in a shard."""
    length: int | None = None
    """Number of bytes."""


ResultRow = tuple[WantedPicture, DownloadResult]
