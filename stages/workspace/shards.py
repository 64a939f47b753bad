"""Shards: the downloaded pictures as parquet files, a range of ids each. Bytes are kept as they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.workspace.files import replacing

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("bytes", pa.binary()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
    ]
)
"""Rows are sorted by image_id; width, height (px) and format (png, jpeg, gif, webp) are of the bytes."""
RULE = 1
"""Raise it when `write` gives other bytes than before."""
SUFFIX = ".parquet"
ROWS = 64
"""Pictures a row group: what a reader that goes picture by picture has in memory."""


def name(number: int) -> str:
    """File name of the shard that covers the ids from `number` * shard_size on."""
    return f"shard-{number:05d}{SUFFIX}"


def files(folder: Path) -> list[Path]:
    """The shards of a folder, by ascending ids."""
    return sorted(folder.glob("shard-*.parquet"), key=lambda file: (len(file.name), file.name))


def write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one shard from rows in ascending order of id, `ROWS` in memory at a time. Equal rows give equal bytes."""
    # Pictures are compressed already: packing them again would cost time and bring nothing.
    with replacing(file) as aside, pq.ParquetWriter(aside, SCHEMA, compression="none", use_dictionary=False) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


def read(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole shard, or some of its columns."""
    return pq.read_table(file, columns=None if columns is None else list(columns))


def pictures(folder: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Id and bytes of the wanted pictures that are there, by ascending id; a row group in memory at a time."""
    for file in files(folder):
        shard = pq.ParquetFile(file)
        for group in range(shard.num_row_groups):
            ids = shard.read_row_group(group, columns=["image_id"])["image_id"].to_pylist()
            if wanted.isdisjoint(ids):
                continue
            for image_id, data in zip(ids, shard.read_row_group(group, columns=["bytes"])["bytes"], strict=True):
                if image_id in wanted:
                    yield image_id, data.as_py()
