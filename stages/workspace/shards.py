"""Shards: the downloaded pictures as Parquet files, one for each range of ids. Bytes are stored as downloaded."""

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
        ("url", pa.string()),
        ("sha512", pa.string()),
    ]
)
"""Rows are sorted by image_id; width, height (px) and format (png, jpeg, gif, webp) describe the bytes. `url` is where
they came from, and `sha512` the original's hash in the dump, or empty: so the shard alone tells what is downloaded."""
WRITER_VERSION = 2
"""Part of the picture store's cache keys: increase it when `write` changes its output."""
SUFFIX = ".parquet"
ROWS = 64
"""Pictures in a row group, and so the most that a reader holds in memory."""


def name(number: int) -> str:
    """File name of the shard whose ids start at `number` * shard_size."""
    return f"shard-{number:05d}{SUFFIX}"


def files(folder: Path) -> list[Path]:
    """The shards of a folder, by ascending ids."""
    # From shard 100000 on, names have six digits: by length first, or they would sort before shard-99999.
    return sorted(folder.glob("shard-*.parquet"), key=lambda file: (len(file.name), file.name))


def write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one shard from rows sorted by id, with `ROWS` in memory at a time. Equal rows give equal bytes."""
    # No compression: picture formats are compressed already, so it would cost time and save nothing.
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    with replacing(file) as aside, pq.ParquetWriter(aside, SCHEMA, **options) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


def read(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole shard, or some of its columns."""
    return pq.read_table(file, columns=None if columns is None else list(columns))


def pictures(folder: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield id and bytes of those `wanted` pictures that exist, by ascending id, with one row group in memory."""
    for file in files(folder):
        shard = pq.ParquetFile(file)
        for group in range(shard.num_row_groups):
            # The ids cost little to read; the bytes of a group without a wanted picture are never read.
            ids = shard.read_row_group(group, columns=["image_id"])["image_id"].to_pylist()
            if wanted.isdisjoint(ids):
                continue
            for image_id, data in zip(ids, shard.read_row_group(group, columns=["bytes"])["bytes"], strict=True):
                if image_id in wanted:
                    yield image_id, data.as_py()
