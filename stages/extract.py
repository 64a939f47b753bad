"""`lite.pgdump`, policy -> `images.parquet`, the catalogue of images, and `summary.json`."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from stages.catalogue.images import Catalogue
from stages.config.extract import Extract
from stages.dump import lite
from stages.dump.databases import BoardDatabase
from stages.workspace import paths
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.progress import Progress

log = logging.getLogger(__name__)

ROW_GROUP = 65_536


class WithoutPandas(MetaPathFinder):
    """Keeps Arrow from importing pandas, which takes 0.3 s and serves conversions that nothing here needs."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def main() -> None:
    params = load(Extract)
    lite.use(paths.LITE_DUMP, functools.partial(write_outs, params))


def write_outs(params: Extract, database: BoardDatabase) -> None:
    """Write `images.parquet` and `summary.json`."""
    with database.cursor() as cursor:
        cursor.execute("SET work_mem = '256MB'")  # with less, PostgreSQL groups a board's tags in files
        catalogue = Catalogue(cursor, params)
        with replacing(paths.IMAGES) as images, replacing(paths.EXTRACT_SUMMARY) as summary:
            write(catalogue, images)
            summary.write_text(json.dumps(catalogue.summary(), indent=2) + "\n")
    log.info("%s", ", ".join(f"{count} {label}" for label, count in catalogue.summary()["labels"].items()))


def write(catalogue: Catalogue, target: Path) -> None:
    """Write the catalogue as Parquet. Equal rows give equal bytes, whatever batches they arrive in."""
    with (
        pq.ParquetWriter(target, catalogue.schema, compression="zstd") as writer,
        ThreadPoolExecutor(1) as pool,
        Progress("extract", unit="image") as progress,
    ):
        writing = None
        for table in row_groups(catalogue.batches(), catalogue.schema):
            if writing:
                writing.result()  # in a thread of its own, so that the next rows are read meanwhile
            writing = pool.submit(writer.write_table, table, row_group_size=ROW_GROUP)
            progress.update(len(table))
        if writing:
            writing.result()


def row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Regroup batches into tables of exactly `ROW_GROUP` rows; the last one is shorter."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while len(waiting) >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP).combine_chunks()  # else the batches would decide where pages end
            waiting = waiting.slice(ROW_GROUP)
    if len(waiting):
        yield waiting.combine_chunks()


if __name__ == "__main__":
    sys.meta_path.insert(0, WithoutPandas())
    run(main)
