"""`lite.pgdump`, policy -> `images.parquet`, the catalogue of images, and `summary.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.catalogue.images import Catalogue
from stages.config.extract import Extract
from stages.dump import lite
from stages.workspace import paths
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.progress import Progress

log = logging.getLogger(__name__)

ROW_GROUP = 65_536


def main() -> None:
    params = load(Extract)
    with lite.opened(paths.LITE_DUMP) as database, database.cursor() as cursor:
        catalogue = Catalogue(cursor, params)
        with replacing(paths.IMAGES) as images, replacing(paths.EXTRACT_SUMMARY) as summary:
            write(catalogue, images)
            summary.write_text(json.dumps(catalogue.summary(), indent=2) + "\n")
    log.info("%s", ", ".join(f"{count} {label}" for label, count in catalogue.summary()["labels"].items()))


def write(catalogue: Catalogue, target: Path) -> None:
    """Write the catalogue as Parquet. Equal rows give equal bytes, whatever batches they arrive in."""
    with (
        pq.ParquetWriter(target, catalogue.schema, compression="zstd") as writer,
        Progress("extract", unit="image") as progress,
    ):
        for table in row_groups(catalogue.batches(), catalogue.schema):
            writer.write_table(table, row_group_size=ROW_GROUP)
            progress.update(len(table))


def row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Regroup batches into tables of exactly `ROW_GROUP` rows; the last one is shorter."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while len(waiting) >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP)
            waiting = waiting.slice(ROW_GROUP)
    if len(waiting):
        yield waiting


if __name__ == "__main__":
    run(main)
