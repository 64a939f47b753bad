"""A package's picture files as they are; JPEGs become PNGs, as the sample board has PNGs only."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial

from PIL import Image

Drawings = dict[str, Callable[[], bytes]]
"""Name -> a function that returns the picture's PNG file."""
LONGEST = 1280
"""Longer side that a JPEG is scaled down to, in px."""


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The PNGs and JPEGs, named by their paths without endings."""
    found: Drawings = {}
    for path, data in files.items():
        stem, _, ending = path.rpartition(".")
        if ending == "png":
            found[stem] = partial(bytes, data)
        elif ending in ("jpg", "jpeg"):
            found[stem] = partial(_converted, data)
    return found


def png(image: Image.Image) -> bytes:
    """A picture's PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _converted(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((LONGEST, LONGEST))
        return png(image.convert("RGB"))
