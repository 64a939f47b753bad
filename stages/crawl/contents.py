"""Shards and segments -> the pictures in them, for an index that was lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.crawl import segments
from stages.crawl.results import DownloadResult, ResultRow, WantedPicture
from stages.workspace import cache, shards

FACTS = ("sha256", "width", "height", "format")
"""Fields of a result that are columns of a shard, and in a segment's headers."""
COLUMNS = [name for name in shards.SCHEMA.names if name != "bytes"]
UNREADABLE = (OSError, ValueError, IndexError, OverflowError, pa.ArrowException)
"""What reading a damaged file raises."""


class Contents(NamedTuple):
    """What a file has. The pictures' bytes are unchecked; all else is as it was written."""

    rows: list[ResultRow]
    damaged: int = 0
    """Number of further pictures, about which nothing can be read."""
    name: str = ""
    """What the picture store would call this shard, if it is whole."""


def contents(file: Path) -> Contents | None:
    """What a file has, which is nothing for a Parquet file that is no shard; None if the file cannot be read."""
    try:
        return _of_segment(file) if file.suffix == segments.SUFFIX else _of_shard(file)
    except UNREADABLE:
        return None


def shard_name(rows: Sequence[ResultRow], arrow_version: str) -> str:
    """The picture store's name for the shard of these pictures: a hash of all that determines the file's bytes."""
    content = [(*picture, *(getattr(result, name) for name in FACTS)) for picture, result in rows]
    # Another version of Arrow may encode the same rows differently.
    return f"{cache.key(shards.WRITER_VERSION, arrow_version, content)}{shards.SUFFIX}"


def _of_segment(file: Path) -> Contents:
    return Contents(
        [
            _row(file, {"image_id": 0, **header}, start, header["length"])
            for header, start in segments.records(file)
            if {"url", "sha512", *FACTS} <= header.keys()
        ]
    )


def _of_shard(file: Path) -> Contents:
    rows: list[ResultRow] = []
    damaged = 0
    with pq.ParquetFile(file, page_checksum_verification=True) as shard:
        if not shard.schema_arrow.equals(shards.SCHEMA):
            return Contents([])
        for group in range(shard.num_row_groups):
            try:
                table = shard.read_row_group(group, columns=COLUMNS).to_pylist()
                rows += [_row(file, row, group * shards.ROWS + place) for place, row in enumerate(table)]
            except UNREADABLE:
                damaged += shard.metadata.row_group(group).num_rows
        arrow_version = shard.metadata.created_by.rpartition(" ")[2]
    return Contents(rows, damaged, shard_name(rows, arrow_version))


def _row(file: Path, row: dict[str, Any], start: int, length: int | None = None) -> ResultRow:
    facts = {name: row[name] for name in FACTS}
    picture = WantedPicture(row["image_id"], row["url"], row["sha512"])
    return picture, DownloadResult("ok", 200, **facts, file=str(file.absolute()), start=start, length=length)
