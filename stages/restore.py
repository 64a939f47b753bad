"""A board's dump -> `lite.pgdump`, which has the needed tables and columns only, and `tables.json`."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from stages.config.restore import Restore
from stages.dump import archive, databases, lite, loading, shaping
from stages.dump.archive import Archive
from stages.dump.databases import BoardDatabase
from stages.dump.tables import lacking, needed_tables
from stages.workspace import paths
from stages.workspace.cache import file_hash
from stages.workspace.errors import DumpError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Restore)
    path = Path(params.dump)
    sha256 = background_hash(path)  # takes minutes for a large dump, as loading does
    try:
        source = archive.read(path)
        tables = needed_tables(source)
        for missing in lacking(source, tables):
            log.warning("warning: %s lacks %s", path, missing)
        lite.check_space(source, tables)
        with databases.new() as database:
            loading.load(source, tables, database, params.jobs)
            check_sha256(path, sha256.result(), params.sha256)
            shaping.shape(database)
            write_outs(source, sha256.result(), database, params.compression)
    except DumpError:
        if params.sha256 and path.is_file():  # another file than the published one explains all that is wrong with it
            check_sha256(path, sha256.result(), params.sha256)
        raise


def background_hash(path: Path) -> Future[str]:
    """Compute a file's SHA-256 in a thread that does not keep the process from ending."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(file_hash(path))
        except OSError as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def check_sha256(path: Path, actual: str, published: str | None) -> None:
    """Compare a dump's SHA-256 with the published one, if that is given.

    Raises:
        DumpError: if they differ.
    """
    if published and actual != published.lower():
        raise DumpError(
            f"{path} has SHA-256 {actual}, not the published {published.lower()}",
            f"{archive.FETCH_AGAIN}, or correct restore.sha256",
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
