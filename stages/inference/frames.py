"""An animation -> the frames that the bot scores, chosen by how long each is shown. Only Pillow and numpy.

Animations are where hostile files hide: a header that announces more frames than there are, a frame that is larger than
the picture, or so many frames that decoding takes minutes. So frames are counted from the file's own blocks before any
is decoded, each frame must keep to the caps, and decoding stops after a time limit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageFile

from stages.inference.containers import DEFAULT_DURATION, Container
from stages.inference.decoding import (
    BLANK,
    CAPS,
    UNCAPPED,
    Caps,
    Pixels,
    decode_first,
    exif_orientation,
    letterbox,
    open_picture,
    picture_errors,
    upright,
)
from stages.inference.phash import inside


@dataclass(frozen=True)
class Seen:
    """The decoded frames of one picture."""

    frames: Pixels
    """uint8 [n, size, size, 3], RGB, letterboxed; n = 1 for a still picture."""
    width: int
    """Of the picture in px, after its EXIF orientation is applied."""
    height: int
    missed: int = 0
    """Frames that were selected but not decoded: the time was up, or the file ends early."""
    larger: Pixels | None = None
    """The first frame at another size, uint8 [height, width, 3], without borders, if that was asked for."""


def frames(
    data: bytes,
    size: int,
    background: int = BLANK,
    caps: Caps = CAPS,
    count: int = 8,
    seconds: float = 5.0,
    larger: int = 0,
) -> Seen:
    """Decode the first frame of a picture and others that stand for the time that it is shown.

    Args:
        data: a file in one of `stages.inference.decoding.FORMATS`.
        size: side of the letterboxed frames, in px.
        background: grey level (0 to 255) of the borders and behind transparent parts.
        caps: what is refused before it is decoded.
        count: frames to decode at most.
        seconds: limit of the thread's CPU time, checked between frames. The first frame is always decoded.
        larger: longer side at which the first frame is wanted besides, px; 0 if it is not.

    Raises:
        PictureError: `too_large`, `corrupt` or `timed_out` if not even the first frame can be decoded; no other
            exception.
    """
    deadline = time.thread_time() + seconds
    container, image = open_picture(data, caps)
    with picture_errors():
        width, height = image.size
        image, first = decode_first(container, image, max(size, larger), background)
        if exif_orientation(image) > 4:  # turned by 90 degrees
            width, height = height, width
        durations = _durations(container, image)
        selected = chosen(durations, count)
        decoded = [letterbox(first, size, background)]
        other = inside(letterbox(first, larger, background), width, height) if larger else None
    # A file that announces more frames than it holds counts as one missed frame.
    wanted = len(selected) + (container.announced > len(durations))
    with contextlib.suppress(Exception):  # a malformed frame hides no frame before it
        for place in range(1, max(selected) + 1):
            if time.thread_time() > deadline:
                break
            # A frame holds only what changed since the frame before it, so every frame must be decoded.
            image.seek(place)
            image.load()
            if place in selected:
                decoded.append(letterbox(upright(image), size, background))
    return Seen(np.stack(decoded), width, height, wanted - len(decoded), other)


def frame_count(data: bytes) -> int:
    """How many frames a downloaded picture has: 1 unless it is animated.

    Raises:
        PictureError: if it cannot be opened.
    """
    return len(_durations(*open_picture(data, UNCAPPED)))


def _durations(container: Container, image: ImageFile.ImageFile) -> Sequence[int]:
    """How long each frame is shown, of those that can be decoded."""
    if image.format == "AVIF":
        return (DEFAULT_DURATION,) * int(getattr(image, "n_frames", 1))
    return container.durations


def chosen(durations: Sequence[int], count: int) -> set[int]:
    """The frames to look at: those shown at `count` times spread evenly from the first frame to the last.

    If a frame is shown so long that several of these times fall on it, the others are spread evenly over the frames.

    Args:
        durations: of each frame, any unit.
        count: frames to choose at most.
    """
    present = len(durations)
    if count == 1 or present == 1:
        return {0}
    ends = np.cumsum(durations, dtype=np.float64)
    middles = ends - np.asarray(durations) / 2
    times = np.linspace(middles[0], middles[-1], min(present, count))
    places = np.minimum(np.searchsorted(ends, times, side="right"), present - 1)
    selected = set(places.tolist())
    for place in np.round(np.linspace(0, present - 1, min(present, count))).astype(int).tolist():
        if len(selected) < min(present, count):
            selected.add(place)
    return selected
