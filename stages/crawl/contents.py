"""Shards and segments -> the pictures in them, for an index that was lost."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.crawl import segments
from stages.crawl.results import DownloadResult, ResultRow, WantedPicture
from stages.workspace import cache, shards

FACTS = ("sha256", "width", "height", "format")
"""Fields of a result that are columns of a shard, and in a segment's headers."""
COLUMNS = [*WantedPicture._fields, *FACTS]
BATCH = 4096
"""Records of a segment in memory at a time."""
UNREADABLE = (OSError, ValueError, IndexError, OverflowError, pa.ArrowException)
"""What reading a damaged file raises."""


class Contents(NamedTuple):
    """What a file, or a part of it, has. The pictures' bytes are unchecked; all else is as it was written."""

    rows: list[ResultRow]
    damaged: int = 0
    """Number of further pictures, about which nothing can be read."""
    name: str = ""
    """What the picture store would call this shard, if it is whole."""


def contents(file: Path) -> Iterator[Contents]:
    """What a shard has, or what a segment has, in parts; nothing of a Parquet file that is no shard.

    Raises:
        UNREADABLE: if the file is too damaged to tell.
    """
    if file.suffix != segments.SUFFIX:
        yield _of_shard(file)
        return
    rows = (
        _row(file, [0, *(header[name] for name in COLUMNS[1:])], start, header["length"])
        for header, start in segments.records(file)
        if set(COLUMNS[1:]) <= header.keys()
    )
    while part := list(itertools.islice(rows, BATCH)):
        yield Contents(part)


def shard_name(rows: Sequence[ResultRow], arrow_version: str) -> str:
    """The picture store's name for the shard of these pictures: a hash of all that determines the file's bytes."""
    content = [(*picture, *(getattr(result, name) for name in FACTS)) for picture, result in rows]
    # Another version of Arrow may encode the same rows differently.
    return f"{cache.key(shards.WRITER_VERSION, arrow_version, content)}{shards.SUFFIX}"


def _of_shard(file: Path) -> Contents:
    with pq.ParquetFile(file, page_checksum_verification=True) as shard:
        if not shard.schema_arrow.equals(shards.SCHEMA):
            return Contents([])
        rows = [
            _row(file, row, start + place)
            for start, table in _readable(shard)
            for place, row in enumerate(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
        ]
        name = shard_name(rows, shard.metadata.created_by.rpartition(" ")[2])
        return Contents(rows, shard.metadata.num_rows - len(rows), name)


def _readable(shard: pq.ParquetFile) -> Iterator[tuple[int, pa.Table]]:
    """All rows but the bytes; of a damaged shard the row groups that can be read, each with its first row's number."""
    with contextlib.suppress(*UNREADABLE):
        yield 0, shard.read(columns=COLUMNS)  # five times faster than one row group after the other
        return
    for group in range(shard.num_row_groups):
        with contextlib.suppress(*UNREADABLE):
            yield group * shards.ROWS, shard.read_row_group(group, columns=COLUMNS)


def _row(file: Path, values: Sequence[Any], start: int, length: int | None = None) -> ResultRow:
    """A picture and its result, from the values of `COLUMNS`."""
    picture, (sha256, width, height, kind) = WantedPicture._make(values[:3]), values[3:]
    place = (str(file.absolute()), start, length)
    return picture, DownloadResult("ok", 200, None, width, height, kind, sha256, *place)
