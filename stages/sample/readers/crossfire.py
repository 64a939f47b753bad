"""Crossfire's archive of pictures: before each PNG, a line `IMAGE BYTES PATH`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from stages.sample.readers.files import Drawings

ARCHIVE = "crossfire.base"
START = "./arch/"
PNG = b"\x89PNG"


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The archive's pictures by their paths, for example `weapon/sword/dagger.111`."""
    archive = files[ARCHIVE]
    found: Drawings = {}
    at = 0
    while (end := archive.find(b"\n", at)) >= 0:
        _, size, path = archive[at:end].decode().split(" ")
        at = end + 1 + int(size)
        data = archive[end + 1 : at]
        if data.startswith(PNG):
            found[path.removeprefix(START)] = partial(bytes, data)
    return found
