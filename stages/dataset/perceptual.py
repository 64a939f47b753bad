"""A perceptual hash of each picture in the shards: computed once, then read from the cache."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import ImageOps
from tqdm import tqdm

from stages.inference.decoding import Caps, letterbox, open_checked
from stages.inference.phash import inside, phash
from stages.workspace import shards
from stages.workspace.cache import cache_root
from stages.workspace.errors import MLpyError, PictureError
from stages.workspace.files import replacing

log = logging.getLogger(__name__)

KIND = "phash-64 side-128 grey-128 1"
"""What is computed, for the cache's keys. Count up when `of_picture` changes."""
SIDE = 128
GREY = 128
CAPS = Caps(max_bytes=2**31, max_pixels=2**27)
"""The download kept to its own caps; these only stop a decoder gone mad."""


def of_picture(data: bytes) -> int:
    """The 64-bit pHash of an encoded picture's first frame, as an unsigned integer.

    It sees what the models see, transparent parts in grey.

    Raises:
        PictureError: `too_large` or `corrupt`.
    """
    try:
        image = open_checked(data, CAPS)
        image.draft("RGB", (SIDE, SIDE))
        image = ImageOps.exif_transpose(image)
        return phash(inside(letterbox(image, SIDE, GREY), *image.size))
    except PictureError:
        raise
    except Exception as error:
        raise PictureError("corrupt", f"cannot be decoded ({type(error).__name__})") from error


def of_shards(files: Iterable[Path]) -> pa.Table:
    """The pictures in shards, sorted by id: image_id int64, sha256 string, phash uint64.

    Hashes are cached by the ids and SHA-256 of a shard's pictures; a new one is computed on every core.

    Raises:
        MLpyError: if a picture in a shard cannot be decoded.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and scales outside the interpreter's lock
        try:
            ahead = [pool.submit(_of_shard, file) for file in files]
            tables = [task.result() for task in tqdm(ahead, "perceptual hashes", unit="shard", disable=None)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not tables:
        raise MLpyError("there are no shards in data/download/shards; run `dvc repro download`")
    return pa.concat_tables(tables).sort_by("image_id")


def _of_shard(file: Path) -> pa.Table:
    table = shards.read(file, ["image_id", "sha256"])
    content = hashlib.sha256(KIND.encode())
    for image_id, digest in zip(*(column.to_pylist() for column in table.columns), strict=True):
        content.update(f"\n{image_id} {digest}".encode())
    cached = cache_root() / "phash" / f"{content.hexdigest()}.npy"
    hashes = _read(cached, len(table))
    if hashes is None:
        hashes = np.fromiter(_hashes(file), np.uint64, len(table))
        with replacing(cached) as aside, aside.open("wb") as out:
            np.save(out, hashes, allow_pickle=False)
    return table.append_column("phash", pa.array(hashes))


def _read(cached: Path, count: int) -> NDArray[np.uint64] | None:
    try:
        hashes = np.load(cached, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s is damaged (%s) and is computed anew", cached, type(error).__name__)
        return None
    return hashes if hashes.dtype == np.uint64 and hashes.shape == (count,) else None


def _hashes(file: Path) -> Iterable[int]:
    for batch in pq.ParquetFile(file).iter_batches(64, columns=["image_id", "bytes"]):
        for image_id, data in zip(batch.column("image_id").to_pylist(), batch.column("bytes"), strict=True):
            try:
                yield of_picture(data.as_py())
            except PictureError as error:
                raise MLpyError(
                    f"image {image_id} in {file} is {error}, though the download found it sound; "
                    "remove data/download and run `dvc repro download` again"
                ) from error
