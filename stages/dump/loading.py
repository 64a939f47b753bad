"""A dump's rows -> tables of a new database: pg_restore unpacks them, COPY loads them.

pg_restore's own tables would need all that their definitions name: sequences, collations, types, functions of checks.
These tables have plain columns, so that a dump of any of that loads, on a server of any version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, cast

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.dump import progress
from stages.dump.archive import FETCH_AGAIN, Archive
from stages.dump.databases import BoardDatabase
from stages.dump.programs import FailedError, Output, binary, output
from stages.dump.tables import DumpedTable
from stages.workspace.errors import DumpError

BLOCK = 1 << 18
"""Bytes of rows to hand on at a time."""
WITHOUT_LIMITS = """
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
    ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
"""


def load(dump: Archive, tables: Sequence[DumpedTable], database: BoardDatabase, jobs: int = 1) -> None:
    """Load the rows of `tables` into an empty database, without indexes, constraints or triggers.

    Raises:
        DumpError: if the dump is damaged, or compressed in a way that pg_restore does not know.
        DatabaseError: if the disk is full, or the connection is lost.
    """
    extents = dump.extents()
    parts = [extents[table.rows.id] for table in tables if table.rows.id in extents]
    stopped = threading.Event()
    with progress.bar(dump.path, parts) as progressed, ThreadPoolExecutor(jobs) as pool:

        def watch(process: int) -> None:
            if stopped.is_set():
                raise InterruptedError
            progressed(process)

        largest_first = sorted(tables, key=lambda table: -_size(extents.get(table.rows.id, (0, 0))))
        running = [pool.submit(_load_table, dump, table, database, watch) for table in largest_first]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            stopped.set()  # the others end at their next block, and the pool waits for them
            raise


def _size(extent: tuple[int, int]) -> int:
    return extent[1] - extent[0]


def _load_table(dump: Archive, table: DumpedTable, database: BoardDatabase, watch: Callable[[int], None]) -> None:
    command: list[str | Path] = [binary("pg_restore"), "--use-list", "/dev/stdin", "--file", "-", dump.path]
    with output(command, f"{table.rows.id};\n", watch) as rows, database.cursor() as cursor:
        cursor.execute(WITHOUT_LIMITS)
        cursor.execute("SET client_encoding = %s", [dump.encoding])
        # In the transaction that creates the table, COPY writes no WAL; after FREEZE, no reader has to mark rows.
        cursor.execute("BEGIN")
        cursor.execute(_creation(table))
        try:
            rows.skip_past(table.rows.copy or b"")
            _copy(cursor, table, rows)
        except (FailedError, psycopg2.DataError) as error:
            raise _damaged(dump, rows.failure or error) from error
        cursor.execute("COMMIT")


def _creation(table: DumpedTable) -> sql.Composed:
    columns = (sql.SQL("{} " + declared).format(sql.Identifier(name)) for name, declared in table.columns.items())
    return sql.SQL("CREATE TABLE public.{} ({})").format(sql.Identifier(table.name), sql.SQL(", ").join(columns))


def _copy(cursor: Cursor, table: DumpedTable, rows: Output) -> None:
    statement = sql.SQL("COPY public.{} ({}) FROM STDIN (FREEZE)").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    try:
        cursor.copy_expert(statement, cast(Any, rows), BLOCK)  # only its `read` is called
    except psycopg2.Error:
        if rows.failure:  # psycopg2 has put another exception in its place
            raise rows.failure from None
        raise


def _damaged(dump: Archive, error: Exception) -> DumpError:
    if isinstance(error, FailedError):
        if "does not support compression" in str(error):
            return DumpError(
                f"{dump.path} is packed in a way that this pg_restore cannot read ({error})",
                "dump the board with `pg_dump -Fc --compress=gzip`",
            )
        return DumpError(f"{dump.path} is damaged (pg_restore: {error})", FETCH_AGAIN)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DumpError(f"{dump.path} is damaged (PostgreSQL: {reason})", FETCH_AGAIN)
