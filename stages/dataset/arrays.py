"""Shards of pictures -> arrays, computed once a shard and kept in the cache: here their pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stages.inference.decoding import UNCAPPED, Pixels, pixels
from stages.workspace import cache, shards
from stages.workspace.errors import ModelError, PictureError

RULE = 1
"""Raise it when `stages.inference.decoding.pixels` gives other pixels than before."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A row of numbers for each image, in one .npy file a shard. They stay on disk until they are taken."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    """A hash of what each file was computed from."""
    ids: tuple[Ids, ...]
    """Images in each file, ascending within it and from file to file."""

    @cached_property
    def arrays(self) -> list[NDArray[Any]]:
        """The files' contents: what is not taken is not read."""
        # Plain arrays over the mapped files: of numpy's own class for those each look-up is a new object.
        return [np.asarray(np.load(file, mmap_mode="r")) for file in self.files]

    @cached_property
    def _every(self) -> Ids:
        return np.concatenate(self.ids)

    @cached_property
    def _ends(self) -> Ids:
        return np.cumsum([len(ids) for ids in self.ids])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.arrays[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each number."""
        return self.arrays[0].dtype

    def take(self, ids: Ids) -> NDArray[Any]:
        """The rows of these images, in this order: [len(ids), *shape].

        Raises:
            ModelError: if an image is in no shard.
        """
        return np.stack(self.each(ids)) if len(ids) else np.empty((0, *self.shape), self.dtype)

    def each(self, ids: Ids) -> list[NDArray[Any]]:
        """As `take`, but each row where it lies: read-only, and copied nowhere."""
        places = np.minimum(np.searchsorted(self._every, ids), len(self._every) - 1)
        if missing := np.asarray(ids)[self._every[places] != ids].tolist():
            raise ModelError(f"image {missing[0]} is in a split but in no shard; run `dvc repro split`")
        files = np.searchsorted(self._ends, places, side="right")
        rows = places - self._ends[files]  # counted from a file's end
        return [self.arrays[file][row] for file, row in zip(files.tolist(), rows.tolist(), strict=True)]


Done = Callable[[int], Any]
Write = Callable[[int, Done, Path], None]
"""Computes a shard's rows, given its place, what to call with a count of rows that are done, the file to write."""


def computed(kind: str, names: Sequence[str], ids: Sequence[Ids], write: Write) -> Rows:
    """The rows of each shard from the cache's folder `kind`; those that are not there yet are computed, with a bar."""
    files = []
    with tqdm(total=sum(map(len, ids)), desc=kind, unit="picture", disable=None) as progress:
        for place, ends in enumerate(itertools.accumulate(map(len, ids))):
            files.append(cache.once(kind, f"{names[place]}.npy", partial(write, place, progress.update)))
            progress.update(ends - progress.n)
    return Rows(tuple(files), tuple(names), tuple(ids))


def decoded(folder: Path, size: int, background: int, threads: int) -> Rows:
    """The pixels of every picture in a folder of shards: uint8 rows [size, size, 3], RGB, letterboxed.

    Raises:
        ModelError: if there is no shard, or a picture in one cannot be decoded.
    """
    files = shards.files(folder)
    if not files:
        raise ModelError(f"no shards in {folder}; run `dvc repro download`")
    ids = [shards.read(file, ["image_id"])["image_id"].to_numpy() for file in files]
    names = [cache.key(cache.file_hash(file), size, background, RULE) for file in files]

    def write(place: int, done: Done, aside: Path) -> None:
        table = shards.read(files[place], ["image_id", "bytes"])
        shape = (table.num_rows, size, size, 3)
        array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(threads) as pool:  # Pillow lets go of the interpreter while it decodes
            pictures = (each.as_buffer().to_pybytes() for each in table["bytes"])
            for row, seen in enumerate(pool.map(lambda data: _seen(data, size, background), pictures)):
                if isinstance(seen, PictureError):
                    image = table["image_id"][row].as_py()
                    raise ModelError(f"image {image} in {files[place]}: {seen.detail}; run `dvc repro -f download`")
                array[row] = seen
                done(1)
        array.flush()

    return computed("decoded", names, ids, write)


def _seen(data: bytes, size: int, background: int) -> Pixels | PictureError:
    try:
        return pixels(data, size, background, UNCAPPED)
    except PictureError as error:
        return error
