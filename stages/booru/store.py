"""What was crawled, kept across runs: bytes appended to segment files, an SQLite index of what is whole.

A row is committed after its bytes are written, so that a `kill -9` at any moment leaves at worst bytes that nothing
names. Each process appends to segments of its own; runs of several experiments share the index.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stages.errors import CrawlError

SEGMENT = 512_000_000
"""Bytes after which a new segment is begun."""
STALE = 7 * 24 * 3600.0
"""Seconds after which a failure that was remembered is asked for again."""

TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    url TEXT, sha512 TEXT, status TEXT NOT NULL, http_status INTEGER, detail TEXT, width INTEGER, height INTEGER,
    format TEXT, sha256 TEXT, segment TEXT, start INTEGER, length INTEGER, caps TEXT, seen REAL,
    PRIMARY KEY (url, sha512)
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Wanted:
    """One picture of the catalogue."""

    image_id: int
    url: str
    sha512: str
    """Of the original, as the dump says, or empty: an image whose original was replaced is another picture."""


@dataclass(frozen=True)
class Outcome:
    """What became of one picture."""

    status: str
    """`ok`, `missing`, `corrupt`, `too_large`, `refused`, or `gave_up`."""
    http_status: int | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    sha256: str | None = None
    place: tuple[str, int, int] | None = None
    """Segment, start and length of its bytes in the store."""


class Store:
    """Outcomes by picture. `caps` names the caps in force: failures found under others are asked for again."""

    def __init__(self, folder: Path, caps: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._caps = caps
        self._index = sqlite3.connect(folder / "index.sqlite", isolation_level=None, timeout=60)
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = NORMAL")
        self._index.execute(TABLES)
        self._segment = -1
        self._name = ""
        self._end = SEGMENT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        if self._segment >= 0:
            os.close(self._segment)

    def find(self, wanted: Iterable[Wanted]) -> Iterator[Outcome | None]:
        """What is known of each picture, in order; None for what must be asked for."""
        query = (
            "SELECT status, http_status, detail, width, height, format, sha256, segment, start, length"
            " FROM pictures WHERE url = ? AND sha512 = ? AND (status = 'ok' OR (caps = ? AND seen > ?))"
        )
        fresh = time.time() - STALE
        for each in wanted:
            row = self._index.execute(query, (each.url, each.sha512, self._caps, fresh)).fetchone()
            if row is None:
                yield None
            else:
                status, http_status, detail, width, height, kind, sha256, *place = row
                where = (place[0], place[1], place[2]) if place[0] else None
                yield Outcome(status, http_status, detail, width, height, kind, sha256, where)

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
        if self._end + len(data) > SEGMENT:
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
        if outcome.place is None:
            raise ValueError("only an ok outcome has bytes")
        segment, start, length = outcome.place
        try:
            with (self._folder / segment).open("rb") as file:
                file.seek(start)
                data = file.read(length)
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != outcome.sha256:
            self._index.execute("DELETE FROM pictures WHERE segment = ?", (segment,))
            raise CrawlError(f"the crawl's segment {segment} in {self._folder} is damaged; run again to fetch it anew")
        return data
