"""Shards -> cached arrays with a row per picture: decoded pixels here, features in `stages.training.features`.

Arrays are memory-mapped .npy files, one per shard. So a data set may be larger than the memory, and a new shard costs
only its own computation.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.inference.decoding import UNCAPPED, Pixels, pixels
from stages.workspace import cache, shards
from stages.workspace.errors import ModelError, PictureError
from stages.workspace.progress import Progress

log = logging.getLogger(__name__)

RULE = 1
"""Part of the cache keys. Increase it when `stages.inference.decoding.pixels` gives other pixels."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A row of numbers for each picture, in a .npy file per shard. Rows stay on disk until they are taken."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    """For each file a hash of everything that it was computed from."""
    ids: tuple[Ids, ...]
    """For each file the ids of its rows, ascending within the file and from file to file."""

    @cached_property
    def arrays(self) -> list[NDArray[Any]]:
        """The files' contents, memory-mapped: [n, *shape] each."""
        # np.memmap creates a Python object with each look-up of a row, which is slow; a plain array over it does not.
        return [np.asarray(np.load(file, mmap_mode="r")) for file in self.files]

    @cached_property
    def _all_ids(self) -> Ids:
        return np.concatenate(self.ids)

    @cached_property
    def _ends(self) -> Ids:
        """Position in `_all_ids` after each file's last row."""
        return np.cumsum([len(ids) for ids in self.ids])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.arrays[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.arrays[0].dtype

    def take(self, ids: Ids) -> NDArray[Any]:
        """A copy of these pictures' rows, in this order: [len(ids), *shape].

        Raises:
            ModelError: if a picture is in no shard.
        """
        return np.stack(self.each(ids)) if len(ids) else np.empty((0, *self.shape), self.dtype)

    def each(self, ids: Ids) -> list[NDArray[Any]]:
        """As `take`, but a list of read-only views, without copying."""
        places = np.minimum(np.searchsorted(self._all_ids, ids), len(self._all_ids) - 1)
        if missing := np.asarray(ids)[self._all_ids[places] != ids].tolist():
            raise ModelError(f"image {missing[0]} is in a split but in no shard; run `dvc repro split`")
        files = np.searchsorted(self._ends, places, side="right")
        rows = places - self._ends[files]  # negative: counted from the file's end
        return [self.arrays[file][row] for file, row in zip(files.tolist(), rows.tolist(), strict=True)]


Update = Callable[[int], Any]
"""To be called with the number of rows that were computed since the last call."""
Write = Callable[[int, Update, Path], None]
"""Computes one shard's rows: takes the shard's position, a progress callback, and the file to write."""


def computed(
    kind: str,
    names: Sequence[str],
    ids: Sequence[Ids],
    write: Write,
    suffices: Callable[[int, Path], bool] | None = None,
) -> Rows:
    """The rows of all shards, from the cache or computed with a progress bar.

    Args:
        kind: folder of the cache.
        names: for each shard a hash of everything that its rows are computed from.
        ids: for each shard the ids of its pictures.
        write: computes a shard that is not cached.
        suffices: whether a shard's cached file holds all rows that are needed; takes the shard's position and the file.
    """
    files = []
    with Progress(kind, sum(map(len, ids))) as progress:
        for place, end in enumerate(itertools.accumulate(map(len, ids))):
            enough = partial(suffices, place) if suffices else None
            files.append(cache.once(kind, f"{names[place]}.npy", partial(write, place, progress.update), enough))
            progress.skip(end - progress.n)  # a cached shard, all of it at once
    return Rows(tuple(files), tuple(names), tuple(ids))


def decoded(folder: Path, size: int, background: int, threads: int) -> Rows:
    """The pixels of all pictures in a folder of shards: uint8 rows [size, size, 3], RGB, letterboxed.

    The row of a picture that cannot be decoded is left black: the split stage, which decodes alike, leaves it out.

    Raises:
        ModelError: if there is no shard.
    """
    files = shards.files(folder)
    if not files:
        raise ModelError(f"no shards in {folder}; run `dvc repro download`")
    ids = [shards.read(file, ["image_id"])["image_id"].to_numpy() for file in files]
    names = [cache.key(cache.file_hash(file), size, background, RULE) for file in files]

    def write(place: int, update: Update, aside: Path) -> None:
        table = shards.read(files[place], ["image_id", "bytes"])
        shape = (table.num_rows, size, size, 3)
        array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(threads) as pool:  # threads suffice: Pillow releases the GIL while it decodes
            pictures = (picture.as_buffer().to_pybytes() for picture in table["bytes"])
            for row, result in enumerate(pool.map(lambda data: _decode(data, size, background), pictures)):
                if isinstance(result, PictureError):
                    log.warning("image %d cannot be used: %s", table["image_id"][row].as_py(), result)
                else:
                    array[row] = result
                update(1)
        array.flush()

    return computed("decoded", names, ids, write)


def _decode(data: bytes, size: int, background: int) -> Pixels | PictureError:
    """The pixels, or the error as a value: only the caller knows the picture's id."""
    try:
        return pixels(data, size, background, UNCAPPED)
    except PictureError as error:
        return error
