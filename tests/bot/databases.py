"""Real databases for the bot, that can be taken away and given back: a PostgreSQL server, a file of SQLite's."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from bot.storage.tables import metadata
from stages.dump import postgres
from stages.dump.postgres import Server


class Place(Protocol):
    """An empty database."""

    url: str

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a statement, on a connection of its own."""

    def away(self) -> None:
        """No statement works any more."""

    def back(self) -> None:
        """As before."""


class Postgres:
    """The project's own server, which these tests may stop and start: its socket stays where it was."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.sockets = server.parameters["host"]
        self.sql("ALTER SYSTEM SET synchronous_commit = on")  # what is said to be stored outlives a crash
        self.sql("SELECT pg_reload_conf()")

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "", options: str = "") -> str:
        named = f"{user}:{password}" if password else user
        return f"postgresql://{named}@/{database}?host={self.sockets}&port={self.server.parameters['port']}{options}"

    def new(self) -> PostgresPlace:
        """The one database of the tests, emptied."""
        self.sql("DROP SCHEMA public CASCADE")
        self.sql("CREATE SCHEMA public")
        return PostgresPlace(self)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def locked(self, user: str, password: str) -> None:
        """A superuser who needs a password."""
        self.sql(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")
        rules = self.folder / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")
        self.stop()
        self.start()

    def stop(self) -> None:
        """As a crash does: no session is told."""
        postgres._control(self.folder, "pg_ctl", "-w", "-m", "immediate", "stop")

    def start(self) -> None:
        if not (self.folder / "postmaster.pid").exists():
            postgres._control(self.folder, "pg_ctl", "-w", "-l", "server.log", "-o", f"-k {self.sockets}", "start")

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Neither does it answer, nor does it hang up."""
        pids = [int((self.folder / "postmaster.pid").read_text().split()[0])]
        pids += [pid for (pid,) in self.sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


class PostgresPlace:
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.url = server.url()

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.server.sql(statement)

    def away(self) -> None:
        self.server.stop()

    def back(self) -> None:
        self.server.start()


class SqlitePlace:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    def away(self) -> None:
        self._rename("", "lost_")

    def back(self) -> None:
        self._rename("lost_", "")

    def _rename(self, before: str, after: str) -> None:
        for table in metadata.tables:
            self.sql(f"ALTER TABLE {before}{table} RENAME TO {after}{table}")
