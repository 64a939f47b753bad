"""A picture's bytes -> what a board stores of it: hash, size, format and intensities. Runs in a process of its own."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from stages.inference import decoding
from stages.inference.decoding import Caps
from stages.philomena import intensities


class Measured(NamedTuple):
    """Facts of one picture."""

    sha512: str
    format: str
    """As its bytes say, whatever its name ends with: png, jpeg, gif, webp, avif, bmp or tiff."""
    width: int
    height: int
    """px"""
    size: int
    """In bytes."""
    nw: float
    ne: float
    sw: float
    se: float


def measure(data: bytes, caps: Caps) -> Measured:
    """Measure a picture that passes the check of a downloaded one, so that the download will take it.

    Raises:
        PictureError: `corrupt`, `too_large` or `timed_out`.
    """
    kind, (width, height), frame = decoding.checked_frame(data, caps)
    with decoding.picture_errors():
        if frame.mode.startswith("I"):
            frame = decoding.grey_of_16_bits(frame)
        if not frame.has_transparency_data:
            frame = frame.convert("RGB")  # from any mode; not every one becomes RGBA
        corners = intensities.corners(frame)
    return Measured(hashlib.sha512(data).hexdigest(), kind, width, height, len(data), *corners)
