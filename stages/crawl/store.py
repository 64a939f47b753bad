"""The picture store: everything that was crawled, kept across runs and shared by all experiments.

An SQLite index has one row per picture. The bytes are on the disk once: new pictures are appended to a segment file,
and move to the finished shard that they belong to. Each process appends to segments of its own. A row is committed
after its bytes are written, so a `kill -9` at any moment leaves at worst bytes without a row.

A finished shard is never written again. If the file system supports it, the data set's shard is a hard link to it, and
so is DVC's copy: one read-only inode. Something may still write through a link, so a shard is used only if its size and
modification time are unchanged, and a picture's bytes only if their SHA-256 matches.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from stages.workspace import cache, shards
from stages.workspace.errors import CrawlError

SEGMENT = 512_000_000
"""Size in bytes at which a new segment is started."""
STALE = 7 * 24 * 3600.0
"""Seconds after which a failed download is tried again, and an unused shard is deleted."""
IDLE = 600.0
"""Seconds without a write after which a file without rows is deleted: a segment, or a killed run's partial file."""
LOOKUP_BATCH = 500
"""Pictures that one statement looks up: four times faster than one at a time."""

TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    url TEXT, sha512 TEXT, status TEXT NOT NULL, http_status INTEGER, detail TEXT, width INTEGER, height INTEGER,
    format TEXT, sha256 TEXT, segment TEXT, start INTEGER, length INTEGER, caps TEXT, seen REAL,
    PRIMARY KEY (url, sha512)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, used REAL) WITHOUT ROWID;
"""
SHARD_FIELDS = ("sha256", "width", "height", "format")
"""Fields of a result that are columns of a shard."""
shard_fields = attrgetter(*SHARD_FIELDS)
COLUMNS = "status, http_status, detail, width, height, format, sha256, segment, start, length"


class WantedPicture(NamedTuple):
    """A picture of the catalogue."""

    image_id: int
    url: str
    sha512: str
    """Of the original, from the dump, or empty. If the board replaces an image's file, it is another picture."""


class DownloadResult(NamedTuple):
    """The result of downloading one picture."""

    status: str
    """`ok`, `missing`, `corrupt`, `too_large`, `timed_out` (in decoding), `refused`, or `gave_up`."""
    http_status: int | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    sha256: str | None = None
    file: str | None = None
    """The file in the store that has the bytes: a segment or a finished shard."""
    start: int | None = None
    """Offset of the first byte in a segment, or row in a shard."""
    length: int | None = None
    """Number of bytes."""


class PictureStore:
    """Download results by picture, in a folder.

    `caps` identifies the limits in force: failures recorded under other limits do not count. A store may be used by one
    thread at a time; `reopen` it for another.
    """

    def __init__(self, folder: Path, caps: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._caps = caps
        self._fresh = time.time() - STALE  # fixed when the store opens: a failure of this crawl stays known to its end
        self._index = sqlite3.connect(
            folder / "index.sqlite", isolation_level=None, timeout=60, check_same_thread=False
        )
        # SQLite's own timeout does not cover two processes that switch to WAL at the same moment.
        with FileLock(folder / "index.lock", poll_interval=0.01):
            self._index.execute("PRAGMA journal_mode = WAL")
            self._index.executescript(TABLES)
        self._index.execute("PRAGMA synchronous = NORMAL")
        self._segment = -1  # file descriptor
        self._segment_name = ""
        self._segment_end = SEGMENT
        self._moved = 0  # bytes moved into shards since the last sweep
        self._group = lru_cache(1)(self._read_group)  # a shard is read in order, and a row group has many pictures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and the segment. Everything is on the disk already."""
        self._index.close()
        if self._segment >= 0:
            os.close(self._segment)

    def reopen(self) -> PictureStore:
        """Open the same folder again, for use in another thread."""
        other = PictureStore(self._folder, self._caps)
        other._fresh = self._fresh
        return other

    def results(self, pictures: Iterable[WantedPicture]) -> Iterator[DownloadResult | None]:
        """The known result of each picture, in order; None for one that has to be downloaded."""
        remaining = iter(pictures)
        while batch := list(itertools.islice(remaining, LOOKUP_BATCH)):
            query = (
                f"WITH wanted (place, url, sha512) AS (VALUES {', '.join(['(?, ?, ?)'] * len(batch))})"  # noqa: S608 (marks only)
                f" SELECT {COLUMNS}, place FROM wanted CROSS JOIN pictures USING (url, sha512)"
                " WHERE status = 'ok' OR (caps = ? AND seen > ? AND status <> 'refused')"
            )
            keys = itertools.chain.from_iterable(
                (place, picture.url, picture.sha512) for place, picture in enumerate(batch)
            )
            results: list[DownloadResult | None] = [None] * len(batch)
            for row in self._index.execute(query, [*keys, self._caps, self._fresh]):
                results[row[-1]] = DownloadResult._make(row[:-1])
            yield from results

    def put(self, picture: WantedPicture, result: DownloadResult, data: bytes = b"") -> None:
        """Store a result, and the bytes if its status is `ok`."""
        place = self._append(data) if result.status == "ok" else (None, None, None)
        row = (
            *(picture.url, picture.sha512, result.status, result.http_status, result.detail),
            *(result.width, result.height, result.format, result.sha256),
            *(*place, self._caps, time.time()),
        )
        self._index.execute(f"REPLACE INTO pictures VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 (marks only)

    def _append(self, data: bytes) -> tuple[str, int, int]:
        """Append to the segment; returns its name, the offset and the length."""
        swept = self._segment >= 0 and not os.fstat(self._segment).st_nlink  # deleted after a long pause
        if swept or self._segment_end + len(data) > SEGMENT:
            if self._segment >= 0:
                os.close(self._segment)
            self._segment_name, self._segment_end = f"{uuid.uuid4().hex}.segment", 0
            self._segment = os.open(self._folder / self._segment_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        start = self._segment_end
        view = memoryview(data)
        while view:  # os.write may write less than it is given
            view = view[os.write(self._segment, view) :]
        self._segment_end += len(data)
        return self._segment_name, start, len(data)

    def read(self, picture: WantedPicture, result: DownloadResult) -> bytes:
        """Read the bytes of a picture whose status is `ok`.

        Raises:
            CrawlError: if the bytes on the disk are damaged; the next run downloads the picture again.
        """
        if result.file is None:
            raise ValueError("only an ok result has bytes")
        file = result.file
        # If the bytes are not where the result says, another run may have moved them into a shard: look it up again.
        for known in itertools.chain([result], self.results([picture])):
            if known and known.file:
                file = known.file
                data = self._bytes(known)
                if hashlib.sha256(data).hexdigest() == result.sha256:
                    return data
        self._forget_damaged(file)
        raise CrawlError(f"{self._folder / file} has damaged pictures; run again to download them")

    def _forget_damaged(self, file: str) -> None:
        """Delete the rows of those of a file's pictures whose bytes are damaged."""
        query = f"SELECT {COLUMNS}, url, sha512 FROM pictures WHERE segment = ?"  # noqa: S608 (names only)
        for *columns, url, sha512 in self._index.execute(query, (file,)).fetchall():
            result = DownloadResult._make(columns)
            if hashlib.sha256(self._bytes(result)).hexdigest() != result.sha256:
                self._index.execute("DELETE FROM pictures WHERE url = ? AND sha512 = ?", (url, sha512))

    def _bytes(self, result: DownloadResult) -> bytes:
        """Whatever is stored at a result's place; nothing if the file is gone or unreadable."""
        name, start, length = result.file or "", result.start or 0, result.length or 0
        try:
            if name.endswith(shards.SUFFIX):
                data: bytes = self._group(name, start // shards.ROWS)[start % shards.ROWS].as_py()
                return data
            with (self._folder / name).open("rb") as segment:
                segment.seek(start)
                return segment.read(length)
        except (OSError, IndexError, pa.ArrowException):
            return b""

    def shard(self, rows: Sequence[tuple[WantedPicture, DownloadResult]]) -> Path:
        """The finished shard of these pictures, which is written if it does not exist.

        Args:
            rows: pictures whose status is `ok`, by ascending id.

        Returns:
            A read-only file that never changes: link or copy it.

        Raises:
            CrawlError: if a picture's bytes on the disk are damaged.
        """
        content = [(picture.image_id, *shard_fields(result)) for picture, result in rows]
        # Another version of Arrow may encode the same rows differently.
        file = self._folder / f"{cache.key(shards.WRITER_VERSION, pa.__version__, content)}{shards.SUFFIX}"
        if not self._is_intact(file):
            shards.write(file, (self._shard_row(picture, result) for picture, result in rows))
            self._move(file, rows)
        return file

    def _is_intact(self, file: Path) -> bool:
        """Whether a shard was finished, and has not changed since."""
        known = self._index.execute("SELECT size, mtime, used FROM shards WHERE name = ?", (file.name,)).fetchone()
        if known is None or not file.exists():
            return False
        *stamp, used = known
        if time.time() - used > STALE / 7:  # not at each use: a rerun leaves the index as it is
            self._index.execute("UPDATE shards SET used = ? WHERE name = ?", (time.time(), file.name))
        current = file.stat()
        return [current.st_size, current.st_mtime_ns] == list(stamp)

    def _shard_row(self, picture: WantedPicture, result: DownloadResult) -> dict[str, Any]:
        fields = dict(zip(SHARD_FIELDS, shard_fields(result), strict=True))
        return {"image_id": picture.image_id, "bytes": self.read(picture, result), **fields}

    def _move(self, file: Path, rows: Sequence[tuple[WantedPicture, DownloadResult]]) -> None:
        """Make a new shard the place of its pictures' bytes."""
        file.chmod(0o444)
        with file.open("rb") as written:
            os.fsync(written.fileno())  # the segments that it was written from may be deleted next
            current = os.fstat(written.fileno())
        places = [
            (file.name, row, picture.url, picture.sha512, result.sha256) for row, (picture, result) in enumerate(rows)
        ]
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            stamp = (file.name, current.st_size, current.st_mtime_ns, time.time())
            self._index.execute("REPLACE INTO shards VALUES (?, ?, ?, ?)", stamp)
            self._index.executemany(
                "UPDATE pictures SET segment = ?, start = ? WHERE url = ? AND sha512 = ? AND sha256 = ?", places
            )
        self._moved += current.st_size
        if self._moved >= SEGMENT:
            self._moved = 0
            self.sweep()

    def _read_group(self, name: str, group: int) -> pa.ChunkedArray:
        return pq.ParquetFile(self._folder / name).read_row_group(group, columns=["bytes"])["bytes"]

    def sweep(self) -> None:
        """Delete files without rows: idle segments, killed runs' partial files, and shards unused for a week."""
        used: dict[str, float] = dict(self._index.execute("SELECT name, used FROM shards"))

        def is_expired(file: Path) -> bool:
            if file.name in used:
                return time.time() > used[file.name] + STALE
            return not file.name.startswith("index.") and time.time() > file.stat().st_mtime + IDLE

        with contextlib.suppress(FileNotFoundError):  # another run is sweeping, too
            if expired := [file for file in self._folder.iterdir() if is_expired(file)]:
                in_use = {name for (name,) in self._index.execute("SELECT DISTINCT segment FROM pictures")}
                for file in expired:
                    if file.name not in in_use and is_expired(file):  # check again: it may have been written to since
                        self._index.execute("DELETE FROM shards WHERE name = ?", (file.name,))
                        file.unlink()
