"""What was crawled, kept across runs: an SQLite index of what is whole, and the bytes, once: in a segment file to which
pictures are appended as they come, then in the finished shard that they belong to.

A row is committed after its bytes are written, so that a `kill -9` at any moment leaves at worst bytes that nothing
names. Each process appends to segments of its own; runs of several experiments share the index.

A finished shard is never written again. Where the file system can, the data set's shard is a hard link to it, and so is
DVC's: one inode, read-only. Somebody may still write through such a link, so that a shard is used only while its size
and time are those that it was finished with, and a picture's bytes only if they have its SHA-256.
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
"""Bytes after which a new segment is begun."""
STALE = 7 * 24 * 3600.0
"""Seconds after which a failure that was remembered is asked for again, and a shard that nothing needs is dropped."""
IDLE = 600.0
"""Seconds without a write after which a file that nothing names is dropped: a segment, or what a kill left half."""
AT_ONCE = 500
"""Pictures that one statement asks for: a fourth of the time of one by one."""

TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    url TEXT, sha512 TEXT, status TEXT NOT NULL, http_status INTEGER, detail TEXT, width INTEGER, height INTEGER,
    format TEXT, sha256 TEXT, segment TEXT, start INTEGER, length INTEGER, caps TEXT, seen REAL,
    PRIMARY KEY (url, sha512)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, used REAL) WITHOUT ROWID;
"""
FACTS = ("sha256", "width", "height", "format")
"""What a shard's row says of a picture besides its bytes."""
facts_of = attrgetter(*FACTS)
COLUMNS = "status, http_status, detail, width, height, format, sha256, segment, start, length"


class Wanted(NamedTuple):
    """One picture of the catalogue."""

    image_id: int
    url: str
    sha512: str
    """Of the original, as the dump says, or empty: an image whose original was replaced is another picture."""


class Outcome(NamedTuple):
    """What became of one picture."""

    status: str
    """`ok`, `missing`, `corrupt`, `too_large`, `refused`, or `gave_up`."""
    http_status: int | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    sha256: str | None = None
    file: str | None = None
    """Where the store has its bytes: a segment or a finished shard, ..."""
    start: int | None = None
    """... the first byte in a segment or the row in a shard, ..."""
    length: int | None = None
    """... and how many bytes."""


class Store:
    """Outcomes by picture. `caps` names the caps in force: failures found under others are asked for again."""

    def __init__(self, folder: Path, caps: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._caps = caps
        self._fresh = time.time() - STALE  # for as long as the store is open, however long a crawl takes
        self._index = sqlite3.connect(
            folder / "index.sqlite", isolation_level=None, timeout=60, check_same_thread=False
        )
        with FileLock(folder / "index.lock", poll_interval=0.01):  # SQLite does not wait where two begin a WAL at once
            self._index.execute("PRAGMA journal_mode = WAL")
            self._index.executescript(TABLES)
        self._index.execute("PRAGMA synchronous = NORMAL")
        self._segment = -1
        self._name = ""
        self._end = SEGMENT
        self._moved = 0
        self._group = lru_cache(1)(self._read_group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._index.close()
        if self._segment >= 0:
            os.close(self._segment)

    def again(self) -> Store:
        """The same store for another thread: one at a time may use a `Store`."""
        other = Store(self._folder, self._caps)
        other._fresh = self._fresh
        return other

    def find(self, wanted: Iterable[Wanted]) -> Iterator[Outcome | None]:
        """What is known of each picture, in order; None for what must be asked for."""
        pictures = iter(wanted)
        while some := list(itertools.islice(pictures, AT_ONCE)):
            query = (
                f"WITH asked (place, url, sha512) AS (VALUES {', '.join(['(?, ?, ?)'] * len(some))})"  # noqa: S608 (marks only)
                f" SELECT {COLUMNS}, place FROM asked CROSS JOIN pictures USING (url, sha512)"
                " WHERE status = 'ok' OR (caps = ? AND seen > ?)"
            )
            asked = itertools.chain.from_iterable((place, each.url, each.sha512) for place, each in enumerate(some))
            outcomes: list[Outcome | None] = [None] * len(some)
            for row in self._index.execute(query, [*asked, self._caps, self._fresh]):
                outcomes[row[-1]] = Outcome._make(row[:-1])
            yield from outcomes

    def put(self, wanted: Wanted, outcome: Outcome, data: bytes = b"") -> None:
        """Keep an outcome, with its bytes if it is `ok`."""
        place = self._append(data) if outcome.status == "ok" else (None, None, None)
        row = (
            *(wanted.url, wanted.sha512, outcome.status, outcome.http_status, outcome.detail),
            *(outcome.width, outcome.height, outcome.format, outcome.sha256),
            *(*place, self._caps, time.time()),
        )
        self._index.execute(f"REPLACE INTO pictures VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 (marks only)

    def _append(self, data: bytes) -> tuple[str, int, int]:
        swept = self._segment >= 0 and not os.fstat(self._segment).st_nlink  # it was idle for long
        if swept or self._end + len(data) > SEGMENT:
            if self._segment >= 0:
                os.close(self._segment)
            self._name, self._end = f"{uuid.uuid4().hex}.segment", 0
            self._segment = os.open(self._folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        start = self._end
        view = memoryview(data)
        while view:
            view = view[os.write(self._segment, view) :]
        self._end += len(data)
        return self._name, start, len(data)

    def read(self, wanted: Wanted, outcome: Outcome) -> bytes:
        """The bytes of an `ok` outcome.

        Raises:
            CrawlError: if the disk holds others than were written; the next run fetches the picture again.
        """
        if outcome.file is None:
            raise ValueError("only an ok outcome has bytes")
        file = outcome.file
        for known in itertools.chain([outcome], self.find([wanted])):  # another run may have moved it into a shard
            if known and known.file:
                file = known.file
                data = self._bytes(known)
                if hashlib.sha256(data).hexdigest() == outcome.sha256:
                    return data
        self._forget_damaged(file)
        raise CrawlError(f"the crawl's file {file} in {self._folder} is damaged; run again to fetch what is lost")

    def _forget_damaged(self, file: str) -> None:
        """Forget the pictures of a file whose bytes are not theirs any more."""
        query = f"SELECT {COLUMNS}, url, sha512 FROM pictures WHERE segment = ?"  # noqa: S608 (names only)
        for *columns, url, sha512 in self._index.execute(query, (file,)).fetchall():
            outcome = Outcome._make(columns)
            if hashlib.sha256(self._bytes(outcome)).hexdigest() != outcome.sha256:
                self._index.execute("DELETE FROM pictures WHERE url = ? AND sha512 = ?", (url, sha512))

    def _bytes(self, outcome: Outcome) -> bytes:
        """What is where the bytes of an `ok` outcome should be."""
        name, start, length = outcome.file or "", outcome.start or 0, outcome.length or 0
        try:
            if name.endswith(shards.SUFFIX):
                data: bytes = self._group(name, start // shards.ROWS)[start % shards.ROWS].as_py()
                return data
            with (self._folder / name).open("rb") as segment:
                segment.seek(start)
                return segment.read(length)
        except (OSError, IndexError, pa.ArrowException):
            return b""

    def shard(self, rows: Sequence[tuple[Wanted, Outcome]]) -> Path:
        """The finished shard of these `ok` pictures, ascending by id: the one that is there, or else a new one.

        It is read-only and stays what it is: link or copy it.

        Raises:
            CrawlError: if the disk holds other bytes than were written.
        """
        facts = [(each[0], *facts_of(outcome)) for each, outcome in rows]
        file = self._folder / f"{cache.key(shards.WRITER_VERSION, pa.__version__, facts)}{shards.SUFFIX}"
        if not self._intact(file):
            shards.write(file, (self._row(each, outcome) for each, outcome in rows))
            self._move(file, rows)
        return file

    def _intact(self, file: Path) -> bool:
        """Whether a shard was finished and is as it was then."""
        known = self._index.execute("SELECT size, mtime, used FROM shards WHERE name = ?", (file.name,)).fetchone()
        if known is None or not file.exists():
            return False
        *stamp, used = known
        if time.time() - used > STALE / 7:  # a rerun writes nothing
            self._index.execute("UPDATE shards SET used = ? WHERE name = ?", (time.time(), file.name))
        found = file.stat()
        return [found.st_size, found.st_mtime_ns] == list(stamp)

    def _row(self, wanted: Wanted, outcome: Outcome) -> dict[str, Any]:
        facts = dict(zip(FACTS, facts_of(outcome), strict=True))
        return {"image_id": wanted.image_id, "bytes": self.read(wanted, outcome), **facts}

    def _move(self, file: Path, rows: Sequence[tuple[Wanted, Outcome]]) -> None:
        """Let a new shard be the place of its pictures' bytes."""
        file.chmod(0o444)
        with file.open("rb") as written:
            os.fsync(written.fileno())  # what it was written from is dropped
            found = os.fstat(written.fileno())
        places = [(file.name, row, each.url, each.sha512, outcome.sha256) for row, (each, outcome) in enumerate(rows)]
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            stamp = (file.name, found.st_size, found.st_mtime_ns, time.time())
            self._index.execute("REPLACE INTO shards VALUES (?, ?, ?, ?)", stamp)
            self._index.executemany(
                "UPDATE pictures SET segment = ?, start = ? WHERE url = ? AND sha512 = ? AND sha256 = ?", places
            )
        self._moved += found.st_size
        if self._moved >= SEGMENT:
            self._moved = 0
            self.sweep()

    def _read_group(self, name: str, group: int) -> pa.ChunkedArray:
        return pq.ParquetFile(self._folder / name).read_row_group(group, columns=["bytes"])["bytes"]

    def sweep(self) -> None:
        """Drop files that no picture is in: idle segments, what a kill left half, shards that no run used for long."""
        used: dict[str, float] = dict(self._index.execute("SELECT name, used FROM shards"))

        def is_due(file: Path) -> bool:
            if file.name in used:
                return time.time() > used[file.name] + STALE
            return not file.name.startswith("index.") and time.time() > file.stat().st_mtime + IDLE

        with contextlib.suppress(FileNotFoundError):  # another run is sweeping
            if due := [file for file in self._folder.iterdir() if is_due(file)]:
                named = {name for (name,) in self._index.execute("SELECT DISTINCT segment FROM pictures")}
                for file in due:
                    if file.name not in named and is_due(file):  # not written to since
                        self._index.execute("DELETE FROM shards WHERE name = ?", (file.name,))
                        file.unlink()
