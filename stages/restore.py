"""A board's dump -> `lite.pgdump`, which has the needed tables and columns only, and `tables.json`."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.config.restore import Restore
from stages.dump import archive, databases, lite
from stages.dump.archive import Archive
from stages.dump.databases import BoardDatabase
from stages.dump.tables import needed_entries
from stages.workspace import paths
from stages.workspace.cache import file_hash
from stages.workspace.errors import DumpError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Restore)
    source = archive.read(Path(params.dump))
    entries = needed_entries(source)
    lite.check_space(source, entries)
    with databases.new() as database, ThreadPoolExecutor(1) as background:
        hashing = background.submit(file_hash, source.path)  # takes minutes for a large dump, as loading does
        lite.load(source, entries, database, params.jobs)
        check_sha256(source.path, hashing.result(), params.sha256)
        lite.shape(database)
        write_outs(source, hashing.result(), database, params.compression)


def check_sha256(path: Path, actual: str, published: str | None) -> None:
    """Compare a dump's SHA-256 with the published one, if that is given.

    Raises:
        DumpError: if they differ.
    """
    if published and actual != published:
        raise DumpError(
            f"{path} has SHA-256 {actual}, not the published {published}; "
            "download the dump again, or correct restore.sha256"
        )


def write_outs(source: Archive, sha256: str, database: BoardDatabase, compression: int) -> None:
    """Write `lite.pgdump` and `tables.json`, and keep the database for extract."""
    log.info("writing %s", paths.LITE_DUMP)
    with (
        replacing(paths.LITE_DUMP) as dump,
        replacing(paths.TABLES) as tables,
        ThreadPoolExecutor(1) as background,
    ):
        counting = background.submit(lite.row_counts, database)
        lite.pack(database, dump, compression, like=source.header)
        header = source.header
        summary = {
            "dump": {
                "sha256": sha256,
                "bytes": source.size,
                "date": header.date,
                "archive_version": ".".join(map(str, header.version)),
                "server_version": (header.server_version or b"").decode(errors="replace"),
            },
            "rows": counting.result(),
        }
        tables.write_text(json.dumps(summary, indent=2) + "\n")
        database.keep(file_hash(dump))


if __name__ == "__main__":
    run(main)
