"""What was found in a folder, kept on disk: rows of metadata, pictures by content, and what is left out.

A temporary SQLite database, which SQLite deletes itself: 100,000 pictures take as much memory as 1,000.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from stages.folder.listing import Entry
from stages.folder.measuring import Measured
from stages.folder.metadata import Row
from stages.folder.names import key_of
from stages.folder.tagging import Description

SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;
CREATE TABLE metadata (key TEXT, labels TEXT, tags TEXT, source TEXT, unlabelled INT, used INT DEFAULT 0);
CREATE INDEX metadata_key ON metadata (key);
CREATE TABLE pictures (
    place INT, sha512 TEXT, path TEXT, labels TEXT, tags TEXT, source TEXT, format TEXT, width INT, height INT,
    size INT, nw REAL, ne REAL, sw REAL, se REAL
);
CREATE TABLE left_out (path TEXT, reason TEXT, detail TEXT);
"""
ORDERED = "CREATE INDEX IF NOT EXISTS pictures_order ON pictures (place, sha512, path)"
IDS = 1_000_000_000
"""Ids are below this number, but for the last ones in a row of neighbours."""


@dataclass(frozen=True)
class Image:
    """A picture by its content: all files with these bytes."""

    id: int
    path: str
    """The first of its files."""
    files: int
    labels: tuple[str, ...]
    tags: tuple[str, ...]
    """Of all its files, sorted."""
    contradicted: bool
    """Its files have different labels."""
    source: str
    measured: Measured


class Contents:
    """A folder's contents. Use it as a context manager, in one thread."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(SCHEMA)
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_metadata(self, row: Row) -> None:
        """Note a row of metadata."""
        values = (row.path, _joined(row.labels), _joined(row.tags), row.source, row.unlabelled)
        self._database.execute(
            "INSERT INTO metadata (key, labels, tags, source, unlabelled) VALUES (?, ?, ?, ?, ?)", values
        )

    def row(self, path: str) -> Row | None:
        """What the metadata say of a file, all its rows together."""
        key = key_of(path)
        query = "SELECT labels, tags, source, unlabelled FROM metadata WHERE key = ? ORDER BY source"
        rows = self._database.execute(query, (key,)).fetchall()
        if not rows:
            return None
        self._database.execute("UPDATE metadata SET used = 1 WHERE key = ?", (key,))
        labels, tags = (sorted({name for row in rows for name in _split(row[place])}) for place in (0, 1))
        return Row(key, tuple(labels), tuple(tags), max(row[2] for row in rows), all(row[3] for row in rows))

    def repeated_rows(self) -> int:
        """How many rows of metadata are further ones of a file."""
        ((count,),) = self._database.execute("SELECT count(*) - count(DISTINCT key) FROM metadata")
        return int(count)

    def unused_rows(self) -> Iterator[str]:
        """The paths in metadata that are no file's."""
        for (path,) in self._database.execute("SELECT DISTINCT key FROM metadata WHERE NOT used ORDER BY key"):
            yield path

    def add(self, path: str, description: Description, measured: Measured) -> None:
        """Note a picture."""
        place = int(measured.sha512[:15], 16) % IDS
        known = (_joined(description.labels), _joined(description.tags), description.source)
        marks = ", ".join("?" * 14)
        self._database.execute(
            f"INSERT INTO pictures VALUES ({marks})",  # noqa: S608 (question marks)
            (place, measured.sha512, path, *known, *measured[1:]),
        )

    def leave_out(self, entry: Entry) -> None:
        """Note what is left out."""
        self._database.execute("INSERT INTO left_out VALUES (?, ?, ?)", (entry.path, entry.reason, entry.detail))

    def left_out(self) -> Iterator[tuple[str, str, str]]:
        """Path, reason and detail of all that is left out, sorted."""
        yield from self._database.execute("SELECT path, reason, detail FROM left_out ORDER BY path, reason, detail")

    def reasons(self) -> Counter[str]:
        """Reason -> how much is left out."""
        return Counter(dict(self._database.execute("SELECT reason, count(*) FROM left_out GROUP BY reason ORDER BY 1")))

    def images(self) -> Iterator[Image]:
        """The pictures by ascending id.

        An id follows from the content alone, so that pictures that come or go do not change those of others: it is the
        first of the numbers from a hash on that no picture before it has.
        """
        self._database.execute(ORDERED)
        rows = self._database.execute("SELECT * FROM pictures ORDER BY place, sha512, path")
        last = 0
        for _, group in itertools.groupby(rows, lambda row: row[1]):
            files = list(group)
            place, sha512, path, *_, width, height, size, nw, ne, sw, se = files[0]
            last = max(last + 1, place)
            labels = {file[3] for file in files}
            yield Image(
                id=last,
                path=path,
                files=len(files),
                labels=tuple(sorted({label for text in labels for label in _split(text)})),
                tags=tuple(sorted({tag for file in files for tag in _split(file[4])})),
                contradicted=len(labels) > 1,
                source=max(file[5] for file in files),
                measured=Measured(sha512, files[0][6], width, height, size, nw, ne, sw, se),
            )


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join(names)  # which is in no name


def _split(text: str) -> list[str]:
    return text.split("\n") if text else []
