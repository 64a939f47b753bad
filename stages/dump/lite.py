"""A board's dump -> a database -> `lite.pgdump`, which has the needed tables only, and the same bytes on every machine.

`restore` writes the lite dump; `extract` opens the database that it came from, or restores it again.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.dump import archive, databases, progress
from stages.dump.archive import Archive, ArchiveHeader, TocEntry
from stages.dump.databases import BoardDatabase
from stages.dump.programs import binary, run, streamed
from stages.dump.tables import TABLES, needed_entries
from stages.workspace.cache import file_hash
from stages.workspace.errors import DatabaseError, DumpError

GROWTH = 12
"""Upper bound of a table's size on disk over its compressed size: measured 4 to 6 in a database, 11 while `extract`
sorts it."""
TIMEOUT_VERSION = 17
"""The first PostgreSQL that knows the setting `TIMEOUT`, which every current pg_restore emits."""
TIMEOUT = b"SET transaction_timeout = 0;\n"


@contextlib.contextmanager
def opened(lite: Path) -> Iterator[BoardDatabase]:
    """The database of a lite dump: the cached one, or else restored from the dump now.

    Raises:
        DumpError: if the dump is missing or cannot be read.
        DatabaseError: if PostgreSQL cannot be started or reached, or the disk is too small.
    """
    if not lite.exists():
        raise DumpError(f"{lite} is missing; run `dvc repro restore`, or `dvc pull` if your remote has it")
    source = archive.read(lite)
    hash = file_hash(lite)
    with databases.cached(hash) as database:
        if database:
            yield database
            return
    entries = needed_entries(source)
    check_space(source, entries)
    with databases.new() as restored:
        load(source, entries, restored)
        shape(restored)
        restored.keep(hash)
    with databases.cached(hash) as database:
        if database is None:
            raise DatabaseError("the restored database was deleted by another process; run the command again")
        yield database


def check_space(dump: Archive, entries: list[TocEntry]) -> None:
    """Fail early if the disk is too small.

    Raises:
        DatabaseError: if the disk that new databases are created on has less space than the entries may take.
    """
    folder = databases.disk_folder()
    extents = dump.extents()
    need = GROWTH * sum(extents[entry.id][1] - extents[entry.id][0] for entry in entries if entry.id in extents)
    if folder and need > (free := shutil.disk_usage(folder).free):
        raise DatabaseError(
            f"restoring {dump.path} takes up to {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set MLPY_CACHE to a folder on a larger disk"
        )


def load(dump: Archive, entries: list[TocEntry], database: BoardDatabase, jobs: int = 1) -> None:
    """Restore a dump's `entries` into an empty database: tables and rows, no indexes, constraints or triggers.

    Raises:
        DumpError: if pg_restore cannot read the dump.
        DatabaseError: if the disk is full, or the connection is lost.
    """
    plain = ["--no-owner", "--no-privileges", "--no-tablespaces", "--no-comments", "--no-security-labels"]
    extents = dump.extents()
    parts = [extents[entry.id] for entry in entries if entry.id in extents]
    with tempfile.TemporaryDirectory() as folder, progress.bar(dump.path, parts) as watch:
        listed = Path(folder) / "list"
        listed.write_text("".join(f"{entry.id};\n" for entry in entries))
        command: list[str | Path] = [binary("pg_restore"), *plain, "-L", listed, dump.path]
        if database.version() < TIMEOUT_VERSION:
            load_script(command, database)
            return
        # COPY writes no WAL if its transaction created or truncated the table. `--jobs` adds that TRUNCATE itself.
        speed = ["--jobs", str(jobs)] if jobs > 1 else ["--single-transaction"]
        run(
            [*command, "--exit-on-error", *speed, "-d", database.dsn],
            error=DumpError,
            environment=database.server.environment(),
            watch=watch,
        )


def load_script(command: Sequence[str | Path], database: BoardDatabase) -> None:
    """Pipe the script that pg_restore prints into psql, without the setting that an older server does not know."""
    psql: list[str | Path] = [
        binary("psql"),
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set",
        "ON_ERROR_STOP=1",
    ]
    with streamed([*command, "--file", "-"], TIMEOUT, DumpError) as script:
        environment = database.server.environment()
        run([*psql, "-d", database.dsn, "--file", "-"], error=DumpError, environment=environment, stdin=script)


def shape(database: BoardDatabase) -> None:
    """Give a restored database the tables, columns and types of `TABLES`, and gather statistics for the planner."""
    with database.cursor() as cursor:
        cursor.execute("SET default_statistics_target = 30")  # a sample of 9,000 rows is enough for our queries
        for name, table in TABLES.items():
            cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS public.{} ()").format(sql.Identifier(name)))
            _shape_columns(cursor, name, {**table.columns, **table.optional_columns})
            cursor.execute(sql.SQL("ANALYZE public.{}").format(sql.Identifier(name)))
        # No column uses citext any more, and a lite dump without it restores on a server that lacks it.
        cursor.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'")
        for (extension,) in cursor.fetchall():
            cursor.execute(sql.SQL("DROP EXTENSION {} CASCADE").format(sql.Identifier(extension)))


def _shape_columns(cursor: Cursor, table: str, columns: dict[str, str]) -> None:
    cursor.execute(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [f"public.{table}"],
    )
    present = dict(cursor.fetchall())
    changes = [
        sql.SQL("DROP COLUMN {} CASCADE").format(sql.Identifier(name)) for name in present.keys() - columns.keys()
    ]
    for name, kind in columns.items():
        words = {"name": sql.Identifier(name), "kind": sql.Identifier(kind)}
        if name not in present:
            changes.append(sql.SQL("ADD COLUMN {name} {kind}").format(**words))
        elif present[name] != kind:
            changes.append(sql.SQL("ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}").format(**words))
    if changes:
        target = sql.SQL("ALTER TABLE public.{} ").format(sql.Identifier(table))
        cursor.execute(target + sql.SQL(", ").join(changes))


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
    run(
        [*program, "--no-owner", "--no-privileges", "--file", target, "-d", database.dsn],
        environment=database.server.environment(),
    )
    archive.normalise(target, like)
