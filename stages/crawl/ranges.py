"""The catalogue in ranges of ids, one shard each; and shards written during the crawl as their ranges complete."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
from yarl import URL

from stages.crawl.results import WantedPicture
from stages.crawl.store import DamagedError, PictureStore
from stages.inference.hosts import objection
from stages.workspace.errors import CrawlError

BATCH = 4096


class IdRanges:
    """The catalogue's pictures by ascending id, as one list for each range of `size` ids that is not empty.

    Each iteration reads the file again, so only one range is in memory at a time.
    """

    def __init__(self, catalogue: Path, size: int) -> None:
        if not catalogue.exists():
            raise CrawlError(f"{catalogue} is missing; run `dvc repro extract`")
        self._catalogue = catalogue
        self.pictures: int = pq.read_metadata(catalogue).num_rows
        self._size = size

    def __iter__(self) -> Iterator[list[WantedPicture]]:
        for _, pictures in itertools.groupby(self._pictures(), self.number):
            yield list(pictures)

    def number(self, picture: WantedPicture) -> int:
        """The number of the picture's range, and of its shard."""
        return picture.image_id // self._size

    def check_addresses(self, hosts: Sequence[str]) -> None:
        """Check where the pictures are, which is the same for all of a board, before the first request.

        Raises:
            CrawlError: if pictures are at an address that must not be requested.
        """
        for origin in sorted({"/".join(url.split("/", 3)[:3]) for (urls,) in self._columns("url") for url in urls}):
            try:
                address = URL(origin)
                reason = objection(address, hosts)
            except ValueError:
                address, reason = URL(), "not a web address"
            if reason:
                raise CrawlError(
                    f"pictures at {address.scheme}://{address.host or ''} are not requested: {reason}; check "
                    f"extract.root and download.hosts, which is {', '.join(hosts)}"
                )

    def _pictures(self) -> Iterator[WantedPicture]:
        for ids, urls, hashes in self._columns("image_id", "url", "sha512"):
            yield from map(WantedPicture, ids, urls, (sha512 or "" for sha512 in hashes))

    def _columns(self, *names: str) -> Iterator[list[list[Any]]]:
        file = pq.ParquetFile(self._catalogue)
        # One row group per call: with several, Arrow would keep all of the file's bytes in memory.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH, [group], columns=list(names)):
                yield [column.to_pylist() for column in batch.columns]


class ShardFiller:
    """Writes each shard in a background thread as soon as all its pictures are settled, while the crawl continues.

    It only saves time: `PictureStore.shard` also writes a shard on demand, for example after a crash.
    """

    def __init__(self, store: PictureStore, ranges: IdRanges) -> None:
        self._store = store
        self._thread_store = store.reopen()
        self._ranges = ranges
        self._open: dict[int, list[WantedPicture]] = {}
        self._unsettled: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, "shards")
        self._writing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)  # cancelled shards are written on demand
        self._thread_store.close()
        for shard in self._writing:
            if not shard.cancelled():
                shard.result()

    def missing(self) -> Iterator[WantedPicture]:
        """The pictures without a known result, which have to be downloaded, by ascending id."""
        for pictures in self._ranges:
            known = zip(pictures, self._store.results(pictures), strict=True)
            if missing := [picture for picture, result in known if result is None]:
                number = self._ranges.number(missing[0])
                self._open[number], self._unsettled[number] = pictures, len(missing)
                yield from missing

    def settled(self, picture: WantedPicture) -> None:
        """Record that a missing picture's result is in the store now, or that the crawl gave up on it."""
        number = self._ranges.number(picture)
        self._unsettled[number] -= 1
        if not self._unsettled[number]:
            del self._unsettled[number]
            self._writing.append(self._thread.submit(self._write, self._open.pop(number)))

    def _write(self, pictures: list[WantedPicture]) -> None:
        known = zip(pictures, self._thread_store.results(pictures), strict=True)
        good = [(picture, result) for picture, result in known if result and result.status == "ok"]
        # An older picture may be damaged, which is no reason to stop the crawl.
        with contextlib.suppress(DamagedError):
            if good:
                self._thread_store.shard(good)
