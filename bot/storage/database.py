"""A database that may go away: SQLite, or PostgreSQL for several processes. Appended rows outlive its outages."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Self

from sqlalchemy import Executable, Table, event, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from bot.storage.tables import SCHEMA, meta, metadata
from stages.inference import MLpyError

log = logging.getLogger(__name__)

LOST = (DBAPIError, PoolTimeoutError, OSError)
"""What a database that went away raises; the builtin TimeoutError is an OSError."""
PATIENCE = 5.0
"""Seconds after which PostgreSQL counts as away when it does not take a connection; twice that for an answer."""
BACKLOG = 1000
"""Rows that are kept while the database is away."""
TOGETHER = 100
"""Rows that are written in one go, if so many have come while others were being written."""
Row = tuple[Table, dict[str, Any]]


class StoreError(MLpyError):
    """The database cannot be opened or asked."""


class Database:
    """The connection to it. Use it as an async context manager."""

    def __init__(self, url: str) -> None:
        """`url`: of SQLAlchemy, `sqlite:///file` or `postgresql://user:password@host/name`.

        Raises:
            StoreError: if it is no such URL.
        """
        self.url = _url(url)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        patient: dict[str, Any] = {"timeout": PATIENCE, "command_timeout": 2 * PATIENCE}
        # Each connection to SQLite is a thread, and one more than these would be opened and closed for each statement.
        given: dict[str, Any] = {"pool_size": 2, "max_overflow": 0} if self._sqlite else {"pool_pre_ping": True}
        given |= {} if self._sqlite else {"connect_args": patient, "pool_timeout": 2 * PATIENCE}
        self._engine = create_async_engine(self.url, hide_parameters=True, **given)
        if self._sqlite:
            event.listen(self._engine.sync_engine, "connect", _tune)
        self._backlog: deque[Row] = deque()
        self._writing = asyncio.Lock()
        self._failed = 0
        self.errors = 0
        """Statements that the database did not take."""
        self.away = False
        """Whether it did not answer when it was last to take a row."""

    async def __aenter__(self) -> Self:
        try:
            found = await self._schema()
        except (SQLAlchemyError, OSError, TypeError, ValueError) as error:  # the latter of a query that no driver knows
            await self._engine.dispose()
            await asyncio.sleep(0.1)  # aiosqlite's thread, which could not open the file, still has to tell this loop
            raise StoreError(f"{self} cannot be opened ({_cause(error)}); check MLPY_BOT_DATABASE") from None
        if found != str(SCHEMA):
            await self._engine.dispose()
            raise StoreError(f"{self} is of layout {found}, this bot writes {SCHEMA}; use another")
        return self

    def __str__(self) -> str:
        return f"the database {self.url.set(query={})!r}"  # without the query, which may hold a password too

    async def _schema(self) -> str:
        """As `_made`; tried again, for SQLite does not wait while another process does to a file what `_tune` does."""
        for left in (4, 3, 2, 1, 0):
            try:
                return await self._made()
            except OperationalError:
                if not left:
                    raise
                await asyncio.sleep(0.1)
        raise AssertionError

    async def _made(self) -> str:
        """Make the tables where there are none; the version of those that are there."""
        alone = "BEGIN IMMEDIATE" if self._sqlite else "SELECT pg_advisory_xact_lock(hashtext('mlpy bot'))"
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(alone)  # other processes may be at it too
            await connection.run_sync(metadata.create_all)
            found = (await connection.execute(select(meta.c.value).where(meta.c.key == "schema"))).scalar()
            if found is None:
                await connection.execute(insert(meta).values(key="schema", value=str(SCHEMA)))
        return str(found or SCHEMA)

    async def __aexit__(self, *_: object) -> None:
        await self.flush()
        for row in self._backlog:
            log.error("not stored, the database is away: %s", row[1])
        await self._engine.dispose()

    async def ask(self, statement: Executable, values: dict[str, Any] | None = None) -> Sequence[Any]:
        """Rows of a query, with the values of its `bindparam`s.

        Raises:
            StoreError: if the database is away.
        """
        try:
            async with self._engine.begin() as connection:
                return (await connection.execute(statement, values)).mappings().all()
        except LOST as error:
            raise self._away(error) from None

    async def change(self, *statements: Executable) -> int:
        """Number of rows that the last of these statements changed; all of them are one transaction.

        Raises:
            StoreError: if the database is away.
        """
        try:
            async with self._engine.begin() as connection:
                results = [await connection.execute(statement) for statement in statements]
                return int(results[-1].rowcount)
        except LOST as error:
            raise self._away(error) from None

    async def replace(self, table: Table, row: dict[str, Any]) -> None:
        """Put a row in the place of the one of the same primary key, if there is one.

        Raises:
            StoreError: if the database is away.
        """
        # One statement: of two processes that delete and insert, one would fail.
        statement = (sqlite if self._sqlite else postgresql).insert(table).values(row)
        keys = {column.name for column in table.primary_key}
        others = {name: statement.excluded[name] for name in row.keys() - keys}
        await self.change(statement.on_conflict_do_update(index_elements=sorted(keys), set_=others))

    async def append(self, table: Table, row: dict[str, Any]) -> None:
        """Insert a row, now or once the database is back; a row of the same key that is there already stays."""
        self._backlog.append((table, row))
        await self.flush()
        while len(self._backlog) > BACKLOG:
            log.error("not stored, the database is away for too long: %s", self._backlog.popleft()[1])

    async def flush(self) -> bool:
        """Write what waits for the database; False if it is still away. Whoever comes meanwhile waits for the same
        attempt, and does not make one more.
        """
        failed = self._failed
        async with self._writing:
            while self._backlog and self._failed == failed:
                # They stay there until they are written, should this task be cancelled.
                rows = list(islice(self._backlog, TOGETHER))
                if not await self._write(rows):
                    self._failed += 1
                    break
                for row in rows:
                    if self._backlog and self._backlog[0] is row:
                        self._backlog.popleft()
        return not self._backlog

    async def _write(self, rows: Sequence[Row]) -> bool:
        """Whether these rows are dealt with."""
        try:
            async with self._engine.begin() as connection:
                for each in dict.fromkeys(table for table, _ in rows):
                    # What is there already stays: it may have been written by an attempt that was cut short.
                    statement = (sqlite if self._sqlite else postgresql).insert(each).on_conflict_do_nothing()
                    await connection.execute(statement, [row for table, row in rows if table is each])
        except Exception as error:
            self.away = isinstance(error, LOST) and not _unfit(error)
            if self.away:
                log.warning("%s; %d rows wait", self._away(error), len(self._backlog))
                return False
            if len(rows) > 1:  # one of them is at fault
                for one in rows:
                    if not await self._write([one]):
                        return False
                return True
            self.errors += 1
            log.error("not stored, the database refuses it (%s): %s", _cause(error), rows[0][1])
            return True
        self.away = False
        return True

    @property
    def waiting(self) -> int:
        """Rows that wait for the database."""
        return len(self._backlog)

    def _away(self, error: BaseException) -> StoreError:
        self.errors += 1
        return StoreError(f"the database does not answer ({_cause(error)})")


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise StoreError("MLPY_BOT_DATABASE is no SQLAlchemy URL, such as sqlite:///bot.sqlite") from None
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    name = url.get_backend_name()
    if name not in drivers:
        raise StoreError(f"MLPY_BOT_DATABASE names {name}; SQLite and PostgreSQL are served")
    if "sslmode" in url.query:  # libpq's word for it, which most providers write
        ssl = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": ssl})
    return url.set(drivername=drivers[name])


def _tune(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _unfit(error: BaseException) -> bool:
    """Whether it is the row that is at fault, not the database: waiting would not mend it."""
    inner = getattr(error, "orig", None)
    return (
        isinstance(error, IntegrityError)
        or str(getattr(inner, "sqlstate", None)).startswith("22")
        or isinstance(getattr(inner, "__cause__", None), ValueError)
    )


def _cause(error: BaseException) -> str:
    """Short, and without statement, parameters or password."""
    inner = getattr(error, "orig", None) or error
    return f"{type(inner).__name__}: {inner}"[:200].removesuffix(": ")
