"""A database that may go away: SQLite, or PostgreSQL for several processes. Appended rows survive its outages."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Self

from sqlalchemy import Executable, Table, event, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError, SAWarning, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from bot.storage import migrations
from bot.storage.tables import SCHEMA, meta, metadata
from stages.inference import MLpyError

log = logging.getLogger(__name__)

# A connection that a cancelled task held when the process ends is closed with the process, and not worth a line.
warnings.filterwarnings("ignore", "The garbage collector is trying to clean up", SAWarning)

CONNECTION_ERRORS = (DBAPIError, PoolTimeoutError, OSError)
"""What a lost database raises. The builtin TimeoutError is an OSError."""
TIMEOUT = 5.0
"""Seconds to connect to PostgreSQL; twice that for a statement."""
MAX_BACKLOG = 1000
"""Rows kept while the database is away."""
WRITE_BATCH = 100
"""Rows per transaction, if that many are waiting."""
SCHEMA_TRIES = 5
Row = tuple[Table, dict[str, Any]]


class StoreError(MLpyError):
    """The database cannot be opened or does not answer."""


class BotDatabase:
    """A connection pool with a backlog of rows to write. Use it as an async context manager."""

    def __init__(self, url: str) -> None:
        """`url`: of SQLAlchemy, `sqlite:///file` or `postgresql://user:password@host/name`.

        Raises:
            StoreError: if it is not such a URL.
        """
        self.url = _parse_url(url)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        if self._sqlite:
            # Each connection to SQLite is a thread. Overflow would start and end one for every statement.
            options: dict[str, Any] = {"pool_size": 2, "max_overflow": 0}
        else:
            options = {
                "pool_pre_ping": True,
                "pool_timeout": 2 * TIMEOUT,
                "connect_args": {"timeout": TIMEOUT, "command_timeout": 2 * TIMEOUT},
            }
        self._engine = create_async_engine(self.url, hide_parameters=True, **options)
        if self._sqlite:
            event.listen(self._engine.sync_engine, "connect", _configure_sqlite)
        self._backlog: deque[Row] = deque()
        self._write_lock = asyncio.Lock()
        self._failed_flushes = 0
        self._file_id: tuple[int, int] | None = None
        self.errors = 0
        """Number of failed statements."""
        self.away = False
        """Whether the database did not answer when it was last asked."""

    async def __aenter__(self) -> Self:
        try:
            schema = await self._open_schema()
        except (SQLAlchemyError, OSError, TypeError, ValueError) as error:  # the last two for unknown query parameters
            await self._engine.dispose()
            await asyncio.sleep(0.1)  # aiosqlite's thread reports the failed open to this loop a little later
            raise StoreError(f"{self} cannot be opened ({_cause(error)}); check MLPY_BOT_DATABASE") from None
        if schema != str(SCHEMA):
            await self._engine.dispose()
            raise StoreError(f"{self} has schema version {schema}, this bot needs {SCHEMA}; use another database")
        self._file_id = self._find_file()
        return self

    def __str__(self) -> str:
        return f"the database {self.url.set(query={})!r}"  # the query, too, may contain a password

    async def _open_schema(self) -> str:
        """`_create_tables`, retried: SQLite fails at once while another process runs `_configure_sqlite`."""
        for left in range(SCHEMA_TRIES - 1, -1, -1):
            try:
                return await self._create_tables()
            except OperationalError:
                if not left:
                    raise
                await asyncio.sleep(0.1)
        raise AssertionError

    async def _create_tables(self) -> str:
        """Create missing tables, and upgrade older ones. Returns the schema version that the database has then."""
        lock = "BEGIN IMMEDIATE" if self._sqlite else "SELECT pg_advisory_xact_lock(hashtext('mlpy bot'))"
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(lock)  # other processes may be creating them, too
            await connection.run_sync(meta.create, checkfirst=True)
            found = (await connection.execute(select(meta.c.value).where(meta.c.key == "schema"))).scalar()
            if found is None:
                await connection.execute(insert(meta).values(key="schema", value=str(SCHEMA)))
            elif not found.isdecimal() or int(found) not in range(1, SCHEMA + 1):
                return str(found)  # a newer version's tables stay as they are
            # New tables first: a step may fill them from the old ones.
            await connection.run_sync(metadata.create_all)
            for statement in migrations.statements(int(found or SCHEMA), SCHEMA):
                await connection.exec_driver_sql(statement)
            await connection.execute(update(meta).where(meta.c.key == "schema").values(value=str(SCHEMA)))
        return str(SCHEMA)

    async def __aexit__(self, *_: object) -> None:
        await self.flush()
        # The log is the last place where these decisions can be kept.
        for _table, row in self._backlog:
            log.error("a row was lost because the database is away: %s", row)
        await self._engine.dispose()

    async def query(self, statement: Executable, values: dict[str, Any] | None = None) -> Sequence[Any]:
        """Rows of a query; `values` are those of its `bindparam`s.

        Raises:
            StoreError: if the database is away.
        """
        try:
            async with self._engine.begin() as connection:
                return (await connection.execute(statement, values)).mappings().all()
        except CONNECTION_ERRORS as error:
            raise self._count_error(error) from None

    async def execute(self, *statements: Executable) -> int:
        """Run statements in one transaction. Returns the number of rows that the last one changed.

        Raises:
            StoreError: if the database is away.
        """
        try:
            async with self._engine.begin() as connection:
                results = [await connection.execute(statement) for statement in statements]
                return int(results[-1].rowcount)
        except CONNECTION_ERRORS as error:
            raise self._count_error(error) from None

    async def upsert(self, table: Table, row: dict[str, Any], condition: Callable[[Any], Any] | None = None) -> None:
        """Insert a row, or update the one with the same primary key, if its columns meet the condition.

        Raises:
            StoreError: if the database is away.
        """
        # One statement: if two processes delete and insert at once, one of them fails.
        # SQLAlchemy has ON CONFLICT only in the dialects.
        statement = (sqlite if self._sqlite else postgresql).insert(table).values(row)
        keys = {column.name for column in table.primary_key}
        updates = {name: statement.excluded[name] for name in row.keys() - keys}
        where = condition(table.c) if condition else None
        await self.execute(statement.on_conflict_do_update(index_elements=sorted(keys), set_=updates, where=where))

    async def insert_new(self, table: Table, row: dict[str, Any]) -> bool:
        """Insert a row, unless there is one with the same primary key. Returns whether it was inserted.

        Raises:
            StoreError: if the database is away.
        """
        statement = (sqlite if self._sqlite else postgresql).insert(table).values(row)
        return bool(await self.execute(statement.on_conflict_do_nothing()))

    async def append(self, *rows: Row) -> None:
        """Write rows in this order, now or once the database is back.

        `table.info` says what becomes of an existing row with the same key; without it, that one stays.
        """
        self._backlog.extend(rows)
        await self.flush()
        while len(self._backlog) > MAX_BACKLOG:
            log.error("a row was lost because the database is away for too long: %s", self._backlog.popleft()[1])

    async def flush(self) -> bool:
        """Write the backlog. Returns False if the database is still away.

        Calls that wait for the lock share the outcome of the attempt in progress instead of making one each.
        """
        failed_before = self._failed_flushes
        async with self._write_lock:
            while self._backlog and self._failed_flushes == failed_before:
                # They stay in the backlog until they are written: this task may be cancelled.
                rows = list(islice(self._backlog, WRITE_BATCH))
                if not await self._write(rows):
                    self._failed_flushes += 1
                    break
                for row in rows:
                    if self._backlog and self._backlog[0] is row:
                        self._backlog.popleft()
        return not self._backlog

    async def _write(self, rows: Sequence[Row]) -> bool:
        """Write these rows, or log those that the database rejects. Returns False if it is away."""
        try:
            await self._reopen_if_lost()
            async with self._engine.begin() as connection:
                for table in dict.fromkeys(table for table, _ in rows):
                    await connection.execute(self._insert(table), [row for of, row in rows if of is table])
        except Exception as error:
            if isinstance(error, CONNECTION_ERRORS) and not _is_rejection(error):
                log.warning("%s; %d rows are waiting", self._count_error(error), len(self._backlog))
                return False
            if len(rows) > 1:  # write them one by one, to find the one that the database rejects
                for row in rows:
                    if not await self._write([row]):
                        return False
                return True
            self.errors += 1
            log.error("a row was lost because the database rejects it (%s): %s", _cause(error), rows[0][1])
            return True
        self.away = False
        return True

    def _insert(self, table: Table) -> Any:
        """An INSERT that treats a row with the same key as the table asks for."""
        statement = (sqlite if self._sqlite else postgresql).insert(table)
        if "replaces" not in table.info:
            # A row may be there already, from an attempt that was interrupted after its commit.
            return statement.on_conflict_do_nothing()
        key = table.info["key"]
        fixed = {*key, *table.info.get("keeps", ())}
        return statement.on_conflict_do_update(
            index_elements=list(key),
            set_={column.name: statement.excluded[column.name] for column in table.columns if column.name not in fixed},
            where=table.info["replaces"](table.c, statement.excluded),
        )

    # The file of SQLite

    async def check(self) -> bool:
        """Whether the database answers. A lost file is made anew, and the backlog written."""
        try:
            async with self._write_lock:
                await self._reopen_if_lost()
            async with self._engine.begin() as connection:
                await connection.execute(select(meta.c.key).limit(1))
        except CONNECTION_ERRORS as error:
            log.warning("%s", self._count_error(error))
            return False
        if not self._backlog:  # otherwise the next write tells
            self.away = False
        return await self.flush()

    async def _reopen_if_lost(self) -> None:
        """Open the database again if its file was deleted or replaced: SQLite would go on writing to the old one."""
        if (found := self._find_file()) == self._file_id:
            return
        log.error("%s was %s while the bot runs; opening it anew", self, "replaced" if found else "deleted")
        self.errors += 1
        await self._engine.dispose()
        await self._create_tables()  # without a pause: the next write tries again
        self._file_id = self._find_file()
        await self._restore()

    def _find_file(self) -> tuple[int, int] | None:
        """What identifies the file; None if there is none, as with PostgreSQL.

        Never open the file itself: closing it would drop the locks that SQLite holds on it in this process.
        """
        name = self.url.database
        if not self._sqlite or name in (None, "", ":memory:"):
            return None
        try:
            status = os.stat(str(name))  # noqa: PTH116
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _restore(self) -> None:
        """Write again what is known by heart, after the file was lost."""

    @property
    def waiting(self) -> int:
        """Rows waiting for the database."""
        return len(self._backlog)

    def _count_error(self, error: BaseException) -> StoreError:
        self.errors += 1
        self.away = True
        return StoreError(f"the database does not answer ({_cause(error)})")


def _parse_url(text: str) -> URL:
    """A SQLAlchemy URL with the asynchronous driver for its database."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        raise StoreError("MLPY_BOT_DATABASE is not a SQLAlchemy URL; write it as in sqlite:///bot.sqlite") from None
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    name = url.get_backend_name()
    if name not in drivers:
        raise StoreError(f"MLPY_BOT_DATABASE names {name}; use SQLite or PostgreSQL")
    if "sslmode" in url.query:  # libpq's parameter, which most hosting providers put into their URLs
        ssl = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": ssl})
    return url.set(drivername=drivers[name])


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL lets other processes read while one writes; with it, synchronous = NORMAL cannot corrupt the file.
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _is_rejection(error: BaseException) -> bool:
    """Whether the database rejects the row itself, so that waiting would not help."""
    inner = getattr(error, "orig", None)
    return (
        isinstance(error, IntegrityError)
        or str(getattr(inner, "sqlstate", None)).startswith("22")  # data exceptions
        or isinstance(getattr(inner, "__cause__", None), ValueError)
    )


def _cause(error: BaseException) -> str:
    """The driver's error, short, and without the statement, its parameters and passwords."""
    inner = getattr(error, "orig", None) or error
    return f"{type(inner).__name__}: {inner}"[:200].removesuffix(": ")
