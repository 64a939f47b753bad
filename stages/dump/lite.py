"""A board's dump -> a database -> `lite.pgdump`, which has the needed tables only, and the same bytes on every machine.

`restore` writes the lite dump; `extract` opens the database that it came from, or restores it again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from psycopg2 import sql

from stages.dump import archive, databases
from stages.dump.archive import Archive, ArchiveHeader
from stages.dump.databases import BoardDatabase, DamagedDatabaseError
from stages.dump.loading import load
from stages.dump.programs import binary, run
from stages.dump.shaping import shape
from stages.dump.tables import TABLES, DumpedTable, needed_tables
from stages.workspace.cache import file_hash
from stages.workspace.errors import DatabaseError, DumpError
from stages.workspace.files import temporary

log = logging.getLogger(__name__)

GROWTH = 12
"""Upper bound of a table's size on disk over its compressed size: measured 4 to 6 in a database, 11 while `extract`
sorts it."""
WRITE_AGAIN = "run `dvc repro restore` to write it again"


def use(lite: Path, work: Callable[[BoardDatabase], None]) -> None:
    """Call `work` with the database of a lite dump: the cached one, or else restored from the dump now.

    A cached database that turns out to be damaged is restored, and `work` is called again.

    Raises:
        DumpError: if the dump is missing or cannot be read.
        DatabaseError: if PostgreSQL cannot be started or reached, or the disk is too small.
    """
    if not lite.exists():
        raise DumpError(f"{lite} is missing", "run `dvc repro restore`, or `dvc pull` if your remote has it")
    try:
        source = archive.read(lite)
        tables = needed_tables(source)
        hash = file_hash(lite)
        try:
            if _used(hash, work):
                return
        except DamagedDatabaseError as error:
            log.warning("the cached database is damaged (%s): restoring it from %s", error, lite)
            databases.discard(hash)
        restore(source, tables, hash)
    except DumpError as error:
        raise DumpError(error.problem, WRITE_AGAIN) from error
    if not _used(hash, work):
        raise DatabaseError("the restored database was deleted by another process; run the command again")


def _used(hash: str, work: Callable[[BoardDatabase], None]) -> bool:
    """Call `work` with the cached database, and return whether there is one."""
    with databases.cached(hash) as database:
        if database:
            work(database)
        return database is not None


def restore(source: Archive, tables: list[DumpedTable], hash: str) -> None:
    """Restore a lite dump and keep its database."""
    check_space(source, tables)
    with databases.new() as restored:
        load(source, tables, restored)
        shape(restored)
        restored.keep(hash)


def check_space(dump: Archive, tables: list[DumpedTable]) -> None:
    """Fail early if the disk is too small.

    Raises:
        DatabaseError: if the disk that new databases are created on has less space than the tables may take.
    """
    folder = databases.disk_folder()
    need = GROWTH * sum(dump.packed_size(table.rows) for table in tables)
    if folder and need > (free := shutil.disk_usage(folder).free):
        raise DatabaseError(
            f"restoring {dump.path} takes up to {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set MLPY_CACHE to a folder on a larger disk"
        )


def row_counts(database: BoardDatabase) -> dict[str, int]:
    """Table -> number of rows."""
    with database.cursor() as cursor:
        counts = {}
        for name in TABLES:
            cursor.execute(sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name)))
            counts[name] = int(cursor.fetchall()[0][0])
        return counts


def pack(database: BoardDatabase, target: Path, compression: int, like: ArchiveHeader | None = None) -> None:
    """Dump a database to `target`. Equal tables give equal bytes, whichever server they are on.

    `compression` is a zlib level; `like` is the header to take date and server version from.
    """
    program: list[str | Path] = [binary("pg_dump"), "--format=custom", f"--compress={compression}"]
    with temporary(target) as raw:
        run(
            [*program, "--no-owner", "--no-privileges", "--file", raw, "-d", database.dsn],
            environment=database.server.environment(),
        )
        archive.normalise(raw, target, like)
