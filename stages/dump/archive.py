"""pg_dump's custom format: a header, a table of contents (TOC), then one sequence of data blocks for each table.

Source: PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` and `pg_backup_custom.c`. Archive versions 1.12 (PostgreSQL
9.0) to 1.16 (17 and 18). A dump is untrusted input: every length is checked against the file's size.
"""

from __future__ import annotations

import datetime as dt
import io
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from stages.workspace.errors import DumpError

OLDEST, NEWEST = (1, 12), (1, 16)
MAGIC = b"PGDMP"
CUSTOM = 1
NO_OFFSET, OFFSET, NO_DATA = 1, 2, 3
DATA_BLOCK = 1
PACKED = {b"\2": "lz4", b"\3": "zstd"}
"""Methods, since archive version 1.15, that need more than Python has."""
PIECE = 1 << 18
"""Most bytes to hold in memory at a time."""
FETCH_AGAIN = "fetch it again"
CUSTOM_NEEDED = "the stage needs the custom format of `pg_dump -Fc`"
EPOCH = (0, 0, 0, 1, 0, 70, 0)
"""1970-01-01 as `struct tm`: second, minute, hour, day, month from 0, year from 1900, daylight saving time."""


@dataclass(frozen=True)
class ArchiveHeader:
    version: tuple[int, int, int]
    int_size: int
    offset_size: int
    compression: bytes
    created: tuple[int, ...]
    """Local time of the machine that made the dump, as the seven numbers of `struct tm`."""
    database: bytes | None
    server_version: bytes | None
    dump_version: bytes | None

    @property
    def date(self) -> str:
        """When the dump was made, in ISO 8601 without a time zone."""
        second, minute, hour, day, month, year, _ = self.created
        try:
            return dt.datetime(year + 1900, month + 1, day, hour, minute, second).isoformat()  # noqa: DTZ001
        except ValueError:
            return "unknown"


@dataclass(frozen=True)
class TocEntry:
    """An object listed in the TOC."""

    id: int
    had_dumper: int
    catalogue: tuple[bytes | None, bytes | None]
    """OIDs; they mean nothing outside the cluster that was dumped."""
    tag: bytes
    kind: str
    """For example `TABLE`, `TABLE DATA` or `EXTENSION`."""
    section: int
    definition: bytes | None
    drop: bytes | None
    copy: bytes | None
    """The COPY statement that reads the data."""
    namespace: bytes | None
    tablespace: bytes | None
    access_method: bytes | None
    relation_kind: int
    owner: bytes | None
    with_oids: bytes | None
    dependencies: tuple[int, ...]
    offset_state: int
    offset: int

    @property
    def name(self) -> str:
        return self.tag.decode(errors="replace")


@dataclass(frozen=True)
class Archive:
    """A dump's header and TOC; the data stays in the file."""

    path: Path
    header: ArchiveHeader
    entries: tuple[TocEntry, ...]
    toc_end: int
    size: int

    def data(self, entry: TocEntry) -> Iterator[tuple[int, bytes]]:
        """The rows of a table as COPY reads them, in pieces, each with the number of packed bytes read for it.

        Raises:
            DumpError: if the data is damaged, or packed with another method than zlib.
        """
        method = PACKED.get(self.header.compression if self.header.version >= (1, 15) else b"")
        if method:
            raise DumpError(f"{self.path} is packed with {method}", "dump the board with `pg_dump -Fc --compress=gzip`")
        try:
            with self.path.open("rb", buffering=PIECE) as file:
                reader = _Reader(file, self.size)
                reader.int_size = self.header.int_size
                _seek(self, entry, reader)
                packed = any(self.header.compression[-self.header.int_size :])
                yield from _unpacked(reader, zlib.decompressobj() if packed else None)
        except EOFError:
            raise DumpError(f"{self.path} is damaged ({entry.name} is truncated)", FETCH_AGAIN) from None
        except (ValueError, zlib.error) as error:
            raise DumpError(f"{self.path} is damaged ({entry.name}: {error})", FETCH_AGAIN) from None

    @property
    def encoding(self) -> str:
        """PostgreSQL's name of the encoding of all text."""
        entry = next((entry for entry in self.entries if entry.kind == "ENCODING"), None)
        name = re.search(rb"'(\w+)'", entry.definition or b"") if entry else None
        return name[1].decode() if name else "UTF8"

    def packed_size(self, entry: TocEntry) -> int:
        """Bytes of an entry's data in the file; 0 if the TOC does not say."""
        start, end = self.extents().get(entry.id, (0, 0))
        return end - start

    def extents(self) -> dict[int, tuple[int, int]]:
        """Entry id -> offsets of the first byte of its data and of the byte after the last, if the TOC has them."""
        # The TOC has no lengths: an entry's data ends where the next entry's begins.
        placed = sorted((entry.offset, entry.id) for entry in self.entries if entry.offset_state == OFFSET)
        ends = [*(offset for offset, _ in placed), self.size][1:]
        return {id: (offset, end) for (offset, id), end in zip(placed, ends, strict=True)}


class _Reader:
    """Reads the format's primitive types, and raises EOFError rather than return too few bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.int_size = 4

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if 0 <= count <= self.size else b""
        if len(data) != count:
            raise EOFError
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def skip(self, count: int) -> None:
        if not 0 <= count <= self.size - self.file.tell():
            raise EOFError
        self.file.seek(count, os.SEEK_CUR)

    def int(self) -> int:
        sign = self.byte()
        value = int.from_bytes(self.take(self.int_size), "little")
        return -value if sign else value

    def text(self) -> bytes | None:
        length = self.int()
        return None if length < 0 else self.take(length)


def read(path: Path) -> Archive:
    """Read a dump's header and TOC, and check that the last data block is complete.

    Raises:
        DumpError: if the file is missing, in another format, of an unsupported version, or truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
            _check_format(path, start)
            file.seek(len(MAGIC))
            archive = _read_toc(path, _Reader(file, size))
            if not _is_complete(archive, file):
                raise EOFError
    except FileNotFoundError:
        raise DumpError(
            f"{path} is missing", "run `dvc repro` to build the sample board's dump, or see conf/source/ for another's"
        ) from None
    except IsADirectoryError:
        raise DumpError(f"{path} is a folder", "set restore.dump to a file written by `pg_dump -Fc`") from None
    except PermissionError:
        raise DumpError(f"{path} cannot be read, permission denied", "change its owner or mode") from None
    except EOFError:
        raise DumpError(f"{path} is damaged (truncated)", FETCH_AGAIN) from None
    except ValueError:
        raise DumpError(f"{path} is damaged (its table of contents is not readable)", FETCH_AGAIN) from None
    return archive


def _check_format(path: Path, start: bytes) -> None:
    if start.startswith(MAGIC):
        return
    kinds = {
        b"toc.dat": "a tar dump",
        b"\x1f\x8b": "compressed with gzip; unpack it first",
        b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
        b"BZh": "compressed with bzip2; unpack it first",
        b"\xfd7zXZ": "compressed with xz; unpack it first",
    }
    kind = next((kind for magic, kind in kinds.items() if start.startswith(magic)), "not a PostgreSQL dump")
    if b"PostgreSQL database" in start or start.lstrip().upper().startswith((b"CREATE ", b"SET ", b"BEGIN")):
        kind = "a plain SQL dump"
    raise DumpError(f"{path} is {kind if start else 'empty'}", CUSTOM_NEEDED)


def _read_toc(path: Path, reader: _Reader) -> Archive:
    version = (reader.byte(), reader.byte(), reader.byte())
    if not OLDEST <= version[:2] <= NEWEST:
        actual, oldest, newest = (".".join(map(str, number[:2])) for number in (version, OLDEST, NEWEST))
        raise DumpError(
            f"{path} has archive version {actual}, not {oldest} to {newest}", "dump the board with PostgreSQL 9.0 to 18"
        )
    reader.int_size, offset_size = reader.byte(), reader.byte()
    if reader.byte() != CUSTOM:
        raise DumpError(f"{path} is a tar or directory dump", CUSTOM_NEEDED)
    # pg_dump writes 4 or 8, depending on the machine; anything else is damage.
    if reader.int_size not in (4, 8) or offset_size not in (4, 8):
        raise ValueError
    header = ArchiveHeader(
        version=version,
        int_size=reader.int_size,
        offset_size=offset_size,
        # Since 1.15 the algorithm in one byte, before that zlib's level as a number.
        compression=reader.take(1 if version >= (1, 15) else 1 + reader.int_size),
        created=tuple(reader.int() for _ in range(7)),
        database=reader.text(),
        server_version=reader.text(),
        dump_version=reader.text(),
    )
    entries = tuple(_read_entry(reader, header) for _ in range(reader.int()))
    if not entries:
        raise DumpError(f"{path} has no tables", "dump the board's database")
    return Archive(path, header, entries, reader.file.tell(), reader.size)


def _read_entry(reader: _Reader, header: ArchiveHeader) -> TocEntry:
    values = {
        "id": reader.int(),
        "had_dumper": reader.int(),
        "catalogue": (reader.text(), reader.text()),
        "tag": reader.text() or b"",
        "kind": (reader.text() or b"").decode(),
        "section": reader.int(),
        "definition": reader.text(),
        "drop": reader.text(),
        "copy": reader.text(),
        "namespace": reader.text(),
        "tablespace": reader.text(),
        "access_method": reader.text() if header.version >= (1, 14) else None,
        "relation_kind": reader.int() if header.version >= (1, 16) else 0,
        "owner": reader.text(),
        "with_oids": reader.text(),
        # The list ends with a null text.
        "dependencies": tuple(int(word) for word in iter(reader.text, None)),
        "offset_state": reader.byte(),
        "offset": int.from_bytes(reader.take(header.offset_size), "little"),
    }
    return TocEntry(**values)  # type: ignore[arg-type]  # the dict lists the fields in the file's order


def _seek(archive: Archive, entry: TocEntry, reader: _Reader) -> None:
    """Go to the first block of an entry's data. A dump that was written to a pipe has no offsets, so it is searched."""
    reader.file.seek(entry.offset if entry.offset_state == OFFSET else archive.toc_end)
    while (kind := reader.byte(), number := reader.int()) != (DATA_BLOCK, entry.id):
        if kind != DATA_BLOCK or entry.offset_state == OFFSET:
            raise ValueError(f"its data is not where the table of contents says, but that of entry {number}")
        while length := reader.int():
            reader.skip(length)


def _unpacked(reader: _Reader, unpacker: zlib._Decompress | None) -> Iterator[tuple[int, bytes]]:
    """Unpack the blocks from here to the empty one that ends them."""
    blocks = 0
    while length := reader.int():
        blocks += 1
        while length:
            data = reader.take(min(length, PIECE))
            length -= len(data)
            if unpacker is None:
                yield len(data), data
                continue
            yield len(data), unpacker.decompress(data, PIECE)
            while unpacker.unconsumed_tail:  # a little data may unpack to a lot
                yield 0, unpacker.decompress(unpacker.unconsumed_tail, PIECE)
    if unpacker and blocks and not unpacker.eof:
        raise EOFError


def _is_complete(archive: Archive, file: BinaryIO) -> bool:
    """Whether the last data block ends where the file ends. Without offsets in the TOC, leave it to pg_restore."""
    extents = archive.extents()
    if not extents:
        return True
    last = max(extents.values())[0]
    file.seek(last)
    reader = _Reader(file, archive.size)
    reader.int_size = archive.header.int_size
    if reader.byte() != DATA_BLOCK:  # large objects have another layout, and a board has none
        return True
    reader.int()  # the entry's id
    while length := reader.int():
        reader.skip(length)
    return file.tell() == archive.size


def normalise(source: Path, target: Path, like: ArchiveHeader | None = None) -> None:
    """Copy a dump without anything that differs between dumps of equal tables.

    That is the time of the dump, the database's name and locale, owners, and all numbers that the cluster assigned.
    `like`: the header to take date and server version from; by default 1970-01-01 and the dump's own version.
    """
    dump = read(source)
    # DATABASE and DATABASE PROPERTIES have the name, the locale and the owner.
    kept = [entry for entry in dump.entries if not entry.kind.startswith("DATABASE")]
    numbers = {entry.id: number for number, entry in enumerate(kept, 1)}
    header = replace(
        dump.header,
        created=like.created if like else EPOCH,
        server_version=like.server_version if like else dump.header.server_version,
        database=b"board",
    )
    entries = {
        entry.id: replace(
            entry,
            id=numbers[entry.id],
            catalogue=(b"0", b"0"),
            owner=b"",
            dependencies=tuple(sorted(numbers[id] for id in entry.dependencies if id in numbers)),
        )
        for entry in kept
    }
    _rewrite(dump, target, header, entries)


def _rewrite(archive: Archive, target: Path, header: ArchiveHeader, entries: dict[int, TocEntry]) -> None:
    """Write `archive` to `target` with another header and TOC; the data is copied.

    `entries`: an entry's old id -> its replacement. An entry that is left out must have no data.
    """
    # Offsets have a fixed width, so the TOC's length is known before they are.
    moved = len(toc(header, list(entries.values()))) - archive.toc_end
    placed = [
        replace(entry, offset=entry.offset + moved) if entry.offset_state == OFFSET else entry
        for entry in entries.values()
    ]
    with archive.path.open("rb") as source, target.open("wb") as file:
        file.write(toc(header, placed))
        source.seek(archive.toc_end)
        for id, (start, end) in sorted(archive.extents().items(), key=lambda item: item[1]):
            _copy(source, file, start - source.tell())
            # A data block repeats its entry's id after the block type.
            file.write(source.read(1) + integer(entries[id].id, header))
            source.seek(header.int_size + 1, os.SEEK_CUR)
            _copy(source, file, end - source.tell())
        shutil.copyfileobj(source, file)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0 and (data := source.read(min(count, 1 << 20))):
        target.write(data)
        count -= len(data)


def integer(value: int, header: ArchiveHeader) -> bytes:
    """Encode a number in the format: a byte for the sign, then the magnitude in little-endian order."""
    return bytes([value < 0]) + abs(value).to_bytes(header.int_size, "little")


def _text(value: bytes | None, header: ArchiveHeader) -> bytes:
    return integer(-1, header) if value is None else integer(len(value), header) + value


def toc(header: ArchiveHeader, entries: list[TocEntry]) -> bytes:
    """Encode a dump's header and TOC. The length does not depend on the offsets."""
    out = io.BytesIO()
    out.write(MAGIC + bytes([*header.version, header.int_size, header.offset_size, CUSTOM]) + header.compression)
    out.writelines(integer(value, header) for value in header.created)
    out.writelines(_text(value, header) for value in (header.database, header.server_version, header.dump_version))
    out.write(integer(len(entries), header))
    for entry in entries:
        out.write(integer(entry.id, header) + integer(entry.had_dumper, header))
        kind = entry.kind.encode()
        out.writelines(_text(value, header) for value in (*entry.catalogue, entry.tag, kind))
        out.write(integer(entry.section, header))
        texts = [entry.definition, entry.drop, entry.copy, entry.namespace, entry.tablespace]
        if header.version >= (1, 14):
            texts.append(entry.access_method)
        out.writelines(_text(value, header) for value in texts)
        if header.version >= (1, 16):
            out.write(integer(entry.relation_kind, header))
        dependencies = [str(id).encode() for id in entry.dependencies]
        out.writelines(_text(value, header) for value in (entry.owner, entry.with_oids, *dependencies, None))
        out.write(bytes([entry.offset_state]) + entry.offset.to_bytes(header.offset_size, "little"))
    return out.getvalue()
