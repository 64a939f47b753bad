"""The catalogue in ranges of ids, a shard each, and the shards that a crawl fills one after the other."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq

from stages.crawl.store import Store, Wanted
from stages.workspace.errors import CrawlError

log = logging.getLogger(__name__)

BATCH = 4096


class Ranges:
    """The catalogue's pictures by ascending id, a list for each range of `size` ids that has any.

    Every walk reads the file anew: a range is in memory at a time.
    """

    def __init__(self, catalogue: Path, size: int) -> None:
        if not catalogue.exists():
            raise CrawlError(f"no catalogue {catalogue}; run `dvc repro extract`")
        self._catalogue = catalogue
        self.pictures: int = pq.read_metadata(catalogue).num_rows
        self._size = size

    def __iter__(self) -> Iterator[list[Wanted]]:
        for _, pictures in itertools.groupby(self._pictures(), self.number):
            yield list(pictures)

    def number(self, wanted: Wanted) -> int:
        """Which range a picture is in: the number of its shard."""
        return wanted.image_id // self._size

    def _pictures(self) -> Iterator[Wanted]:
        file = pq.ParquetFile(self._catalogue)
        for group in range(file.num_row_groups):  # one at a time, or the file's bytes would all be kept
            for batch in file.iter_batches(BATCH, [group], columns=["image_id", "url", "sha512"]):
                ids, urls, hashes = (column.to_pylist() for column in batch.columns)
                yield from map(Wanted, ids, urls, (each or "" for each in hashes))


class Filling:
    """Has each shard written as soon as all its pictures are settled: in a thread, beside the crawl.

    What a crash leaves over is no loss: `Store.shard` writes a shard whenever it is asked for one.
    """

    def __init__(self, store: Store, ranges: Ranges) -> None:
        self._store = store
        self._writers = store.again()
        self._ranges = ranges
        self._open: dict[int, list[Wanted]] = {}
        self._left: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, "shards")
        self._writing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)  # those that wait will be asked for
        self._writers.close()
        for each in self._writing:
            if not each.cancelled():
                each.result()

    def lacking(self) -> Iterator[Wanted]:
        """The pictures that must be asked for, by ascending id."""
        for pictures in self._ranges:
            found = zip(pictures, self._store.find(pictures), strict=True)
            if lacking := [each for each, outcome in found if outcome is None]:
                number = self._ranges.number(lacking[0])
                self._open[number], self._left[number] = pictures, len(lacking)
                yield from lacking

    def settled(self, wanted: Wanted) -> None:
        """A picture that was lacking is in the store, or was given up."""
        number = self._ranges.number(wanted)
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            self._writing.append(self._thread.submit(self._write, self._open.pop(number)))

    def _write(self, pictures: list[Wanted]) -> None:
        found = zip(pictures, self._writers.find(pictures), strict=True)
        good = [(each, outcome) for each, outcome in found if outcome and outcome.status == "ok"]
        try:
            if good:
                self._writers.shard(good)
        except CrawlError as error:  # of an older picture: no reason to stop the crawl
            log.warning("%s", error)
