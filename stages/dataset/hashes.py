"""Shards -> a perceptual hash per picture, computed once per shard and cached."""

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

from stages.inference.phash import hash_picture
from stages.workspace import shards
from stages.workspace.cache import cache_root
from stages.workspace.errors import MLpyError, PictureError
from stages.workspace.files import replacing
from stages.workspace.progress import track

log = logging.getLogger(__name__)

KIND = "phash-64 side-128 grey-128 1"
"""Part of each cache key. Increase the last number when `hash_picture` gives other hashes."""
BATCH = 64
"""Pictures in memory at once, per thread."""


def of_shards(files: Iterable[Path]) -> pa.Table:
    """Hash all pictures of some shards, on all cores.

    Returns:
        Columns image_id int64, sha256 string, phash uint64, sorted by image_id. The hash of a picture that cannot be
        decoded, although the download accepted it, is null: such a picture must be left out, as all later stages decode
        it in the same way.

    Raises:
        MLpyError: if there is no shard.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads suffice: Pillow releases the GIL while it decodes
        try:
            tasks = [pool.submit(_of_shard, file) for file in files]
            tables = [task.result() for task in track(tasks, "perceptual hashes", len(tasks), "shard")]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or an error would wait for all other shards
            raise
    if not tables:
        raise MLpyError("there are no shards in data/download/shards; run `dvc repro download`")
    return pa.concat_tables(tables).sort_by("image_id")


def _of_shard(file: Path) -> pa.Table:
    table = shards.read(file, ["image_id", "sha256"])
    # The key is of the pictures' ids and hashes, not of the file: writing a shard again costs no decoding.
    key = hashlib.sha256(KIND.encode())
    for image_id, digest in zip(*(column.to_pylist() for column in table.columns), strict=True):
        key.update(f"\n{image_id} {digest}".encode())
    cached = cache_root() / "phash" / f"{key.hexdigest()}.npy"
    hashes = _read(cached, len(table))
    if hashes is not None:
        return table.append_column("phash", pa.array(hashes))
    column = pa.array(_hashes(file), pa.uint64())
    if not column.null_count:
        with replacing(cached) as aside, aside.open("wb") as out:
            np.save(out, column.to_numpy(), allow_pickle=False)
    return table.append_column("phash", column)


def _read(cached: Path, count: int) -> NDArray[np.uint64] | None:
    """The `count` hashes of a cached file; None if it is missing or damaged."""
    try:
        hashes = np.load(cached, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("the cached file %s is damaged (%s); its hashes are computed again", cached, type(error).__name__)
        return None
    return hashes if hashes.dtype == np.uint64 and hashes.shape == (count,) else None


def _hashes(file: Path) -> Iterable[int | None]:
    for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["image_id", "bytes"]):
        for image_id, data in zip(batch.column("image_id").to_pylist(), batch.column("bytes"), strict=True):
            try:
                yield hash_picture(data.as_py())
            except PictureError as error:
                log.warning("image %d in %s is left out: %s", image_id, file, error)
                yield None
