"""The picture store: everything that was crawled, kept across runs and shared by all experiments.

An SQLite index has one row per picture. The bytes are on the disk once: new pictures are appended to a segment file,
and move to the finished shard that they belong to. Each process appends to segments of its own. A row is committed
after its bytes are written, so a `kill -9` at any moment leaves at worst bytes without a row.

Shards and segments tell which pictures they have, so the index may be lost: `adopt` enters what it lacks, from files
of the store or from anywhere else.

A finished shard is never written again. If the file system supports it, the data set's shard is a hard link to it, and
so is DVC's copy: one read-only inode. Something may still write through a link, so a shard is used only if its size and
modification time are unchanged, and a picture's bytes only if their SHA-256 matches.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import itertools
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from stages.crawl import index, segments
from stages.crawl.contents import FACTS, UNREADABLE, Contents, contents, shard_name
from stages.crawl.results import DownloadResult, ResultRow, WantedPicture
from stages.workspace import shards
from stages.workspace.errors import CrawlError
from stages.workspace.files import linked
from stages.workspace.progress import track

log = logging.getLogger(__name__)

SEGMENT = 512_000_000
"""Size in bytes at which a new segment is started."""
STALE = 7 * 24 * 3600.0
"""Seconds after which a failed download is tried again, and an unused shard is deleted."""
IDLE = 600.0
"""Seconds without a write after which a file without rows is deleted: a segment, or a killed run's partial file."""
LOOKUP_BATCH = 500
"""Pictures that one statement looks up: four times faster than one at a time."""

COLUMNS = "status, http_status, detail, width, height, format, sha256, segment, start, length"


class DamagedError(CrawlError):
    """Pictures of the store turned out to be damaged. The store has forgotten them: they have to be downloaded."""


class PictureStore:
    """Download results by picture, in a folder.

    `caps` identifies the limits in force: failures recorded under other limits do not count. A store may be used by one
    thread at a time; `reopen` it for another.
    """

    def __init__(self, folder: Path, caps: str = "", *, check: bool = True) -> None:
        """Open a folder; `check` its index for damage. An index made anew is filled from the folder's files."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._caps = caps
        self._fresh = time.time() - STALE  # fixed when the store opens: a failure of this crawl stays known to its end
        self._index = index.open_index(folder, check=check)
        self._segment = segments.SegmentWriter(folder, SEGMENT)
        self._moved = 0  # bytes moved into shards since the last sweep
        self._checked: set[str] = set()
        self._reported: set[Path] = set()
        self._group = lru_cache(1)(self._read_group)  # a shard is read in order, and a row group has many pictures
        if not index.is_complete(self._index):
            self.adopt(self.files())
            index.set_complete(self._index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.close()
        if isinstance(error, sqlite3.DatabaseError) and index.is_damage(error):
            raise CrawlError(f"the index in {self._folder} is damaged; run again, and it is made anew") from error

    def close(self) -> None:
        """Close the index and the segment. Everything is on the disk already."""
        self._index.close()
        self._segment.close()

    def reopen(self) -> PictureStore:
        """Open the same folder again, for use in another thread."""
        other = PictureStore(self._folder, self._caps, check=False)
        other._fresh = self._fresh
        return other

    def results(self, pictures: Iterable[WantedPicture]) -> Iterator[DownloadResult | None]:
        """The known result of each picture, in order; None for one that has to be downloaded."""
        remaining = iter(pictures)
        while batch := list(itertools.islice(remaining, LOOKUP_BATCH)):
            query = (
                f"WITH wanted (place, url, sha512) AS (VALUES {', '.join(['(?, ?, ?)'] * len(batch))})"  # noqa: S608 (marks only)
                f" SELECT {index.FACTS}, checksum, {index.PLACE}, place FROM wanted CROSS JOIN pictures"
                " USING (url, sha512) WHERE status = 'ok' OR (caps = ? AND seen > ? AND status <> 'refused')"
            )
            keys = itertools.chain.from_iterable(
                (place, picture.url, picture.sha512) for place, picture in enumerate(batch)
            )
            results: list[DownloadResult | None] = [None] * len(batch)
            for *facts, checksum, file, start, length, place in self._index.execute(
                query, [*keys, self._caps, self._fresh]
            ):
                if index.checksum(*facts) == checksum:
                    results[place] = DownloadResult._make([*facts[2:9], file, start, length])
            yield from results

    def put(self, picture: WantedPicture, result: DownloadResult, data: bytes = b"") -> None:
        """Store a result, and the bytes if its status is `ok`."""
        if result.status == "ok":
            facts = {name: getattr(result, name) for name in FACTS}
            header = {"url": picture.url, "sha512": picture.sha512, **facts, "length": len(data)}
            file, start = self._segment.append(header, data)
            result = result._replace(file=file, start=start, length=len(data))
        self._enter([(picture, result)])

    def _enter(self, rows: Iterable[ResultRow]) -> None:
        """Write rows to the index."""
        now = time.time()
        for picture, result in rows:
            facts = (picture.url, picture.sha512, *result[:7], self._caps, now)
            place = (result.file, result.start, result.length)
            self._index.execute(index.INSERT, (*facts, index.checksum(*facts), *place))

    def read(self, picture: WantedPicture, result: DownloadResult) -> bytes:
        """Read the bytes of a picture whose status is `ok`.

        Raises:
            DamagedError: if the bytes on the disk are damaged.
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
        raise DamagedError(f"{self._folder / file} has damaged pictures; run again to download them")

    def forget_damaged(self, rows: Iterable[ResultRow]) -> bool:
        """Check the files that have these pictures, each once; forget damaged pictures, and return whether some are."""
        files = {result.file for _, result in rows if result.file} - self._checked
        self._checked |= files
        return sum(self._forget_damaged(file) for file in sorted(files) if not self._is_intact(self._folder / file)) > 0

    def _forget_damaged(self, file: str) -> int:
        """Delete the rows of those of a file's pictures whose bytes are damaged, and return their number."""
        query = f"SELECT {COLUMNS}, url, sha512 FROM pictures WHERE segment = ?"  # noqa: S608 (names only)
        rows = self._index.execute(query, (file,)).fetchall()
        damaged = [
            (url, sha512, file) for *columns, url, sha512 in rows if not self._is_whole(DownloadResult._make(columns))
        ]
        if damaged:
            what = "is damaged" if (self._folder / file).exists() else "is gone"
            self._report(self._folder / file, f"{what}: {len(damaged)} of its {len(rows)} pictures")
            with self._index:
                self._index.execute("BEGIN IMMEDIATE")
                # Another run may have moved a picture meanwhile: then its row is not of this file.
                query = "DELETE FROM pictures WHERE url = ? AND sha512 = ? AND segment = ?"
                self._index.executemany(query, damaged)
                self._index.execute("DELETE FROM shards WHERE name = ?", (file,))
        return len(damaged)

    def _is_whole(self, result: DownloadResult) -> bool:
        return hashlib.sha256(self._bytes(result)).hexdigest() == result.sha256

    def _bytes(self, result: DownloadResult) -> bytes:
        """Whatever is stored at a result's place; nothing if the file is gone or unreadable."""
        name, start, length = result.file or "", result.start or 0, result.length or 0
        try:
            if not name.endswith(segments.SUFFIX):
                data: bytes = self._group(name, start // shards.ROWS)[start % shards.ROWS].as_py()
                return data
            with (self._folder / name).open("rb") as segment:
                segment.seek(start)
                return segment.read(min(length, os.fstat(segment.fileno()).st_size))
        except UNREADABLE:
            return b""

    def shard(self, rows: Sequence[ResultRow]) -> Path:
        """The finished shard of these pictures, which is written if it does not exist.

        Args:
            rows: pictures whose status is `ok`, by ascending id.

        Returns:
            A read-only file that never changes: link or copy it.

        Raises:
            DamagedError: if a picture's bytes on the disk are damaged.
        """
        file = self._folder / shard_name(rows, pa.__version__)
        if not self._is_intact(file):
            aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
            try:
                shards.write(aside, (self._shard_row(picture, result) for picture, result in rows))
                if not (file.exists() and filecmp.cmp(aside, file, shallow=False)):  # if equal, its links stay
                    aside.replace(file)
            finally:
                aside.unlink(missing_ok=True)
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
        facts = {name: getattr(result, name) for name in FACTS}
        return {**picture._asdict(), "bytes": self.read(picture, result), **facts}

    def _move(self, file: Path, rows: Sequence[ResultRow]) -> None:
        """Make a new shard the place of its pictures' bytes."""
        file.chmod(0o444)
        places = [
            (file.name, row, picture.url, picture.sha512, result.sha256) for row, (picture, result) in enumerate(rows)
        ]
        with file.open("rb") as written:
            os.fsync(written.fileno())  # the segments that it was written from may be deleted next
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            self._stamp(file)
            self._index.executemany(
                "UPDATE pictures SET segment = ?, start = ? WHERE url = ? AND sha512 = ? AND sha256 = ?", places
            )
        self._group.cache_clear()
        self._moved += file.stat().st_size
        if self._moved >= SEGMENT:
            self._moved = 0
            self.sweep()

    def _stamp(self, file: Path) -> None:
        """Record that a shard is finished."""
        current = file.stat()
        stamp = (file.name, current.st_size, current.st_mtime_ns, time.time())
        self._index.execute("REPLACE INTO shards VALUES (?, ?, ?, ?)", stamp)

    def _read_group(self, name: str, group: int) -> pa.ChunkedArray:
        with pq.ParquetFile(self._folder / name) as shard:
            return shard.read_row_group(group, columns=["bytes"])["bytes"]

    def adopt(self, files: Sequence[Path]) -> int:
        """Enter pictures that the index lacks, from shards and segments that have them whole.

        Args:
            files: of the store, or shards from anywhere else, which are then linked or copied into the store.

        Returns:
            The number of pictures.
        """
        return sum(self._adopt(file) for file in track(files, "recover", len(files), "file"))

    def files(self) -> list[Path]:
        """The store's own finished shards and segments."""
        return [file for suffix in (shards.SUFFIX, segments.SUFFIX) for file in sorted(self._folder.glob(f"*{suffix}"))]

    def _adopt(self, file: Path) -> int:
        try:
            return sum(self._adopt_part(file, part) for part in contents(file))
        except UNREADABLE:
            self._report(file, "is damaged: none of its pictures can be read")
            return 0

    def _adopt_part(self, file: Path, part: Contents) -> int:
        known = self.results(picture for picture, _ in part.rows)
        lacking = [row for row, result in zip(part.rows, known, strict=True) if not (result and result.file)]
        whole = [row for row in lacking if self._is_whole(row[1])]
        if damaged := part.damaged + len(lacking) - len(whole):
            self._report(file, f"is damaged: {damaged} of its {part.damaged + len(part.rows)} pictures")
        if not whole:
            return 0
        if file.parent != self._folder:
            # Under the name that the store would give it, the shard need not be written again.
            file = linked(file, self._folder / (f"{uuid.uuid4().hex}{shards.SUFFIX}" if damaged else part.name))
            file.chmod(0o444)
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            self._enter((picture, result._replace(file=file.name)) for picture, result in whole)
        self._group.cache_clear()
        return len(whole)

    def _report(self, file: Path, trouble: str) -> None:
        """Log what is wrong with a file, once."""
        if file not in self._reported:
            self._reported.add(file)
            log.warning("%s %s; they are taken from a copy, or downloaded again", file, trouble)

    def sweep(self) -> None:
        """Delete files without rows: idle segments, killed runs' partial files, and shards unused for a week."""
        used: dict[str, float] = dict(self._index.execute("SELECT name, used FROM shards"))

        def is_expired(file: Path) -> bool:
            if file.name in used:
                return time.time() > used[file.name] + STALE
            return not file.name.startswith("index.") and time.time() > file.stat().st_mtime + IDLE

        with contextlib.suppress(FileNotFoundError):  # another run is sweeping, too
            if expired := [file for file in self._folder.iterdir() if is_expired(file)]:
                files = {*self.files()}
                in_use = {name for (name,) in self._index.execute("SELECT DISTINCT segment FROM pictures")}
                for file in expired:
                    # Check again: it may have been written to since. Nothing is deleted that the index lacks.
                    if file.name not in in_use and is_expired(file) and not (file in files and self._adopt(file)):
                        self._index.execute("DELETE FROM shards WHERE name = ?", (file.name,))
                        file.unlink()
