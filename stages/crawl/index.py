"""The picture store's index: an SQLite file that is checked when it is opened, and replaced if it is damaged.

`PRAGMA quick_check` finds damage to the file's structure, a checksum in each row damage to its values. The rows of a
damaged index that are whole are kept; all others are found again in the files that have the pictures.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import zlib
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

TABLES = """
CREATE TABLE pictures (
    url TEXT, sha512 TEXT, status TEXT NOT NULL, http_status INTEGER, detail TEXT, width INTEGER, height INTEGER,
    format TEXT, sha256 TEXT, caps TEXT, seen REAL, checksum INTEGER, segment TEXT, start INTEGER, length INTEGER,
    PRIMARY KEY (url, sha512)
) STRICT, WITHOUT ROWID;
CREATE TABLE shards (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, used REAL) STRICT, WITHOUT ROWID;
"""
FACTS = "url, sha512, status, http_status, detail, width, height, format, sha256, caps, seen"
"""The columns that `checksum` covers. The place of the bytes is not among them: their own hash is checked."""
PLACE = "segment, start, length"
INSERT = f"REPLACE INTO pictures ({FACTS}, checksum, {PLACE}) VALUES ({', '.join('?' * 15)})"  # noqa: S608 (names only)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def checksum(*facts: object) -> int:
    """Of a row's `FACTS`."""
    return zlib.crc32(repr(facts).encode(errors="replace"))


def open_index(folder: Path, *, check: bool = True) -> sqlite3.Connection:
    """Open a folder's index. `is_complete` tells whether it was made anew and has to be filled from the files.

    `check`: look for damage, which reads the whole file.

    Raises:
        sqlite3.Error: if the disk or the folder cannot be used.
    """
    file, aside = folder / "index.sqlite", folder / "index.damaged"
    # SQLite's own time-out does not cover two processes that switch to WAL at the same moment.
    with FileLock(folder / "index.lock", poll_interval=0.01):
        try:
            index = _connect(file, check=check)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            log.warning("%s cannot be used (%s); it is made anew from the pictures beside it", file, error)
            _delete(aside)
            for suffix in ("-wal", ""):  # the file itself last: a kill in between leaves it damaged
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{file}{suffix}").replace(f"{aside}{suffix}")
            _delete(file)
            index = _connect(file)
        if aside.exists():
            _salvage(aside, index)
            _delete(aside)
    return index


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is damaged: not that the disk cannot be used, and no bug."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in DAMAGED


def is_complete(index: sqlite3.Connection) -> bool:
    """Whether the index has all pictures of the folder's files."""
    return bool(index.execute("PRAGMA user_version").fetchone()[0])


def set_complete(index: sqlite3.Connection) -> None:
    index.execute("PRAGMA user_version = 1")


def _connect(file: Path, *, check: bool = True) -> sqlite3.Connection:
    """Connect, and create the tables if there are none.

    Raises:
        sqlite3.DatabaseError: with the code SQLITE_CORRUPT or SQLITE_NOTADB if the file is damaged.
    """
    index = sqlite3.connect(file, isolation_level=None, timeout=60, check_same_thread=False)
    try:
        index.text_factory = lambda text: text.decode(errors="replace")  # the checksum tells
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = NORMAL")
        layout = _layout(index)
        if not layout:
            index.executescript(f"BEGIN; {TABLES} COMMIT")
        elif layout != _expected_layout():
            raise _damage("other tables than expected")
        elif check and (faults := index.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise _damage(faults.splitlines()[-1])
    except UnicodeDecodeError as error:  # SQLite's message quotes damaged bytes
        index.close()
        raise _damage("malformed tables") from error
    except BaseException:
        index.close()
        raise
    return index


def _layout(index: sqlite3.Connection) -> list[str]:
    return [text for (text,) in index.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")]


def _expected_layout() -> list[str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as index:
        index.executescript(TABLES)
        return _layout(index)


def _damage(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _delete(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


def _salvage(damaged: Path, index: sqlite3.Connection) -> None:
    """Copy the rows that can be read and have their checksum; those of the layout without checksums are trusted."""
    facts = FACTS.split(", ")
    with contextlib.closing(sqlite3.connect(damaged)) as old, index:
        old.row_factory, old.text_factory = sqlite3.Row, index.text_factory
        index.execute("BEGIN IMMEDIATE")
        # Reading ends at the first damaged page. SQLite's message may quote bytes that are no text.
        with contextlib.suppress(sqlite3.DatabaseError, IndexError, UnicodeDecodeError):
            for row in old.execute("SELECT * FROM pictures"):
                values = [row[name] for name in facts]
                known = row["checksum"] if "checksum" in row.keys() else checksum(*values)  # noqa: SIM118 (no mapping)
                if known == checksum(*values):
                    with contextlib.suppress(sqlite3.IntegrityError):
                        index.execute(INSERT, [*values, known, *(row[name] for name in PLACE.split(", "))])
