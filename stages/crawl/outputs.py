"""The stage's outputs from the picture store: `status.parquet`, one row per image, and the shards."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.crawl.ranges import IdRanges
from stages.crawl.results import DownloadResult, ResultRow, WantedPicture
from stages.crawl.store import DamagedError, PictureStore
from stages.workspace import shards
from stages.workspace.files import linked
from stages.workspace.paths import SHARDS, STATUS
from stages.workspace.progress import Progress

BATCH = 4096
"""Rows of a row group of `status.parquet`: fixed, so that equal rows give equal bytes."""
STATUS_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("status", pa.string()), ("http_status", pa.int16()), ("detail", pa.string())]
)
UNKNOWN = DownloadResult("unknown")
"""For a picture that has to be downloaded first."""

Failures = Mapping[tuple[str, str], DownloadResult]
"""Results by URL and SHA-512, of pictures that the crawl gave up on."""


def write(store: PictureStore, ranges: IdRanges, gave_up: Failures, folder: Path) -> Counter[str]:
    """Write status and shards to `folder`, and count pictures by status.

    A range in which a picture is still unknown gets no shard. A damaged picture is unknown.
    """
    counts: Counter[str] = Counter()
    waiting: list[ResultRow] = []
    (folder / SHARDS.name).mkdir(exist_ok=True)
    with (
        pq.ParquetWriter(folder / STATUS.name, STATUS_SCHEMA, compression="zstd") as status,
        Progress("shards", ranges.pictures) as progress,
    ):
        for pictures in ranges:
            shard = folder / SHARDS.name / shards.name(ranges.number(pictures[0]))
            rows, in_range = _range(store, pictures, gave_up, shard)
            counts += in_range
            waiting += rows
            while len(waiting) >= BATCH:
                _write_status(status, waiting[:BATCH])
                del waiting[:BATCH]
            progress.update(len(pictures))
        _write_status(status, waiting)
    return counts


def _known(store: PictureStore, pictures: list[WantedPicture], gave_up: Failures) -> list[ResultRow]:
    known = zip(pictures, store.results(pictures), strict=True)
    return [(picture, result or gave_up.get((picture.url, picture.sha512), UNKNOWN)) for picture, result in known]


def _range(
    store: PictureStore, pictures: list[WantedPicture], gave_up: Failures, target: Path
) -> tuple[list[ResultRow], Counter[str]]:
    """A range's results, counted; and its shard, if all of them are known. Damaged pictures become unknown."""
    while True:
        rows = _known(store, pictures, gave_up)
        counts = Counter(result.status for _, result in rows)
        if not counts["ok"]:
            return rows, counts
        good = rows if counts["ok"] == len(rows) else [row for row in rows if row[1].status == "ok"]
        if counts[UNKNOWN.status]:
            if store.forget_damaged(good):
                continue
            return rows, counts
        with contextlib.suppress(DamagedError):
            linked(store.shard(good), target)
            return rows, counts


def _write_status(writer: pq.ParquetWriter, rows: list[ResultRow]) -> None:
    columns = [
        [picture.image_id for picture, _ in rows],
        # The first fields of a result are the file's other columns.
        *([result[place] for _, result in rows] for place in range(len(STATUS_SCHEMA) - 1)),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STATUS_SCHEMA, strict=True)]
    if rows:
        writer.write_batch(pa.record_batch(arrays, schema=STATUS_SCHEMA))
