"""Folders of labelled pictures, for tests."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from stages.config.download import Download, Folder
from stages.folder import listing
from stages.folder.contents import Contents
from stages.folder.gathering import gather

MAX_BYTES, MAX_PIXELS = 20_000, 20_000


def picture(name: str, kind: str = "PNG", size: tuple[int, int] = (30, 20), mode: str = "RGB") -> bytes:
    """Blocks of colours that follow from a name."""
    blocks = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    image = Pillow.fromarray(blocks).resize(size, Pillow.Resampling.NEAREST)
    file = io.BytesIO()
    (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(file, kind)
    return file.getvalue()


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def params(folder: Path) -> Download:
    return Download(
        host="stages/folder",
        hosts=["folder.localhost"],
        rate=1000.0,
        concurrency=4,
        tries=1,
        timeout=600.0,
        backoff=0.1,
        max_wait=1.0,
        pause_overloaded=0.1,
        pause_blocked=0.1,
        max_bytes=MAX_BYTES,
        max_pixels=MAX_PIXELS,
        max_failed=0.0,
        shard_size=20_000_000,
        folder=Folder(pictures=str(folder)),
    )


@contextmanager
def gathered(folder: Path) -> Iterator[Contents]:
    """What a folder holds."""
    with Contents() as contents:
        gather(listing.checked(folder), params(folder), contents)
        yield contents
