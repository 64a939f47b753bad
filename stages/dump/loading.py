"""A dump's rows -> tables of a new database, by COPY.

pg_restore would create the tables that the dump defines, which needs all that their definitions name: sequences,
collations, types, functions of checks. These tables have plain columns, so that a dump of any of that loads, on any
version of the server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, cast

import psycopg2
from psycopg2 import sql

from stages.dump.archive import FETCH_AGAIN, Archive
from stages.dump.databases import BoardDatabase
from stages.dump.tables import DumpedTable
from stages.workspace.errors import DumpError
from stages.workspace.progress import Progress

BLOCK = 1 << 16
"""Bytes of rows to send at a time."""
WITHOUT_LIMITS = """
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
    ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
"""


def load(dump: Archive, tables: Sequence[DumpedTable], database: BoardDatabase, jobs: int = 1) -> None:
    """Load the rows of `tables` into an empty database, without indexes, constraints or triggers.

    Raises:
        DumpError: if the dump is damaged.
        DatabaseError: if the disk is full, or the connection is lost.
    """
    sizes = {table.name: dump.packed_size(table.rows) for table in tables}
    stopped, counting = threading.Event(), threading.Lock()
    with (
        Progress("restore", sum(sizes.values()), "B") as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def watch(count: int) -> None:
            if stopped.is_set():
                raise InterruptedError
            with counting:
                bar.update(count)

        largest_first = sorted(tables, key=lambda table: -sizes[table.name])
        running = [pool.submit(_load_table, dump, table, database, watch) for table in largest_first]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            stopped.set()  # the others end at their next block, and the pool waits for them
            raise


class _Rows:
    """A table's rows as a file. psycopg2 hides what `read` raises, so that is kept as `failure`."""

    def __init__(self, pieces: Iterator[tuple[int, bytes]], watch: Callable[[int], None]) -> None:
        self.failure: Exception | None = None
        self._pieces = pieces
        self._watch = watch

    def read(self, size: int) -> bytes:
        """The next rows, about `size` bytes; none at the end."""
        parts, length = [], 0
        try:
            for count, piece in self._pieces:
                self._watch(count)
                parts.append(piece)
                length += len(piece)
                if length >= size:
                    break
        except Exception as error:
            self.failure = error
            raise
        return b"".join(parts)


def _load_table(dump: Archive, table: DumpedTable, database: BoardDatabase, watch: Callable[[int], None]) -> None:
    columns = [(sql.Identifier(name), sql.SQL(declared)) for name, declared in table.columns.items()]
    words = {
        "table": sql.Identifier(table.name),
        "names": sql.SQL(", ").join(name for name, _ in columns),
        "columns": sql.SQL(", ").join(sql.SQL(" ").join(column) for column in columns),
    }
    rows = _Rows(dump.data(table.rows), watch)
    with database.cursor() as cursor:
        cursor.execute(WITHOUT_LIMITS)
        cursor.execute("SET client_encoding = %s", [dump.encoding])
        # In the transaction that creates the table, COPY writes no WAL; after FREEZE, no reader has to mark rows.
        cursor.execute("BEGIN")
        cursor.execute(sql.SQL("CREATE TABLE public.{table} ({columns})").format(**words))
        statement = sql.SQL("COPY public.{table} ({names}) FROM STDIN (FREEZE)").format(**words)
        try:
            cursor.copy_expert(statement, cast(Any, rows), BLOCK)  # only its `read` is called
        except psycopg2.Error as error:
            if rows.failure:
                raise rows.failure from None
            if isinstance(error, psycopg2.DataError):
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise DumpError(f"{dump.path} is damaged (PostgreSQL: {reason})", FETCH_AGAIN) from None
            raise
        cursor.execute("COMMIT")
