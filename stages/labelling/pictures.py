"""An image's id -> its picture for the page: decoded as everywhere, and encoded anew, so no uploaded byte is served."""

from __future__ import annotations

import functools
import io
import threading
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from stages.inference.decoding import BLANK, UNCAPPED, first_frame, letterbox, picture_errors
from stages.workspace import shards

SIDE = 1024
"""Longest side, in px."""
KEPT = 16
"""Encoded pictures that stay in memory."""
TYPE = "image/jpeg"


class Pictures:
    """The pictures of a folder of shards."""

    def __init__(self, folder: Path, shard_size: int) -> None:
        """`shard_size` is the length of the id range that a shard covers."""
        self._folder, self._shard_size = folder, shard_size
        self._decoding = threading.Lock()  # one at a time: a large one takes a gigabyte
        self.encoded = functools.lru_cache(KEPT)(self._encoded)

    def _encoded(self, image_id: int) -> bytes:
        """A picture as JPEG.

        Raises:
            KeyError: if there is none with this id.
            PictureError: if it cannot be decoded.
        """
        file = self._folder / shards.name(image_id // self._shard_size)
        if not file.exists():
            raise KeyError(image_id)
        found = pq.read_table(file, columns=["bytes"], filters=[("image_id", "=", image_id)])["bytes"]
        if not len(found):
            raise KeyError(image_id)
        with self._decoding:
            return encode(found[0].as_py())


def encode(data: bytes) -> bytes:
    """A picture's first frame as JPEG, on grey where it is transparent, as the model sees it.

    Raises:
        PictureError: if it cannot be decoded.
    """
    with picture_errors():
        frame = first_frame(data, SIDE, UNCAPPED)
        side = min(SIDE, max(frame.size))
        square = letterbox(frame, side, BLANK)
    scale = side / max(frame.size)
    width, height = (max(1, round(length * scale)) for length in frame.size)
    left, top = (side - width) // 2, (side - height) // 2  # without the borders that make it a square
    file = io.BytesIO()
    Image.fromarray(square[top : top + height, left : left + width]).save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()
