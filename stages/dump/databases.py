"""Where live databases are kept: each named by the SHA-256 of the dump it came from, complete or not there at all.

By default each is an embedded cluster of its own in the cache folder; with `MLPY_DATABASE_URL` or libpq's `PGHOST`,
`PGHOSTADDR` or `PGSERVICE`, each is a database on that server. A dump is the truth, a database a cache: delete at will.
A cluster of ours is never flushed to the disk (that would take longer than all else), so it is trusted only until the
machine starts anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 (a class with a function's name)
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import parse_dsn

from stages.dump import postgres
from stages.dump.postgres import Server, run
from stages.workspace.cache import cache_root
from stages.workspace.errors import DatabaseError

URL = "MLPY_DATABASE_URL"
PREFIX = "mlpy_"
PARTIAL = "_partial"
NAMES = 40
"""Hexadecimal digits of a hash in a name; PostgreSQL cuts names at 63 bytes."""


@dataclass
class Database:
    server: Server
    name: str
    kept_as: str | None = field(default=None, init=False)

    @property
    def dsn(self) -> str:
        """Libpq's connection string, without password."""
        return self.server.dsn(self.name)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """A cursor on a connection of its own, in autocommit mode.

        Raises:
            DatabaseError: in place of any error of the server, within the block.
        """
        connecting = contextlib.closing(self.server.connect(self.name))
        with connecting as connection, connection.cursor() as cursor, _explaining():
            yield cursor

    def version(self) -> int:
        """The server's major version, as 17."""
        with self.cursor() as cursor:
            return int(cursor.connection.server_version) // 10_000

    def keep(self, hash: str) -> None:
        """Keep this new database under the hash of its dump, once it is left."""
        self.kept_as = hash


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise _explained(error) from error


def _explained(error: psycopg2.Error) -> DatabaseError:
    if error.pgcode == "53100" or "No space left on device" in str(error):
        return DatabaseError("PostgreSQL: the disk is full; free some space, or set MLPY_CACHE to another disk")
    reason = str(error).strip().splitlines() or [type(error).__name__]
    gone = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return DatabaseError(f"PostgreSQL {'went away; run again' if gone else 'refused'}: {reason[0]}")


@contextlib.contextmanager
def new() -> Iterator[Database]:
    """An empty database. It is gone when the block ends, unless `keep` was called and no error came."""
    with _new_on_server(server) if (server := _named_server()) else _new_cluster() as database:
        yield database


@contextlib.contextmanager
def kept(hash: str) -> Iterator[Database | None]:
    """The database that was kept under the hash of its dump; None if there is none."""
    server = _named_server()
    name = hash[:NAMES]
    if server:
        yield Database(server, PREFIX + name) if PREFIX + name in _names(server) else None
    elif (folder := _folder() / f"{name}-{_boot()}").exists():
        with postgres.cluster(folder) as server:
            yield Database(server, "board")
    else:
        yield None


def home() -> Path | None:
    """The folder that new databases take disk space in; None if they are on another's server."""
    return None if _named_server() else _folder()


def _folder() -> Path:
    folder = cache_root() / "postgres"
    folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def _boot() -> str:
    """What tells this start of the machine from any other."""
    with contextlib.suppress(FileNotFoundError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return run(["sysctl", "-n", "kern.bootsessionuuid"]).strip()  # macOS


@contextlib.contextmanager
def _new_cluster() -> Iterator[Database]:
    for leftover in (mark.with_suffix("") for mark in _folder().glob(f"*{PARTIAL}.builder")):
        with _building(leftover) as ours:
            if ours:  # its builder is dead
                postgres.delete(leftover)
    for outdated in _folder().glob(f"{'[0-9a-f]' * NAMES}-*"):
        if outdated.is_dir() and outdated.name[NAMES + 1 :] != _boot() and not postgres.in_use(outdated):
            postgres.delete(outdated)
    folder = _folder() / f"{secrets.token_hex(8)}{PARTIAL}"
    with _building(folder):
        try:
            with postgres.cluster(folder) as server:
                database = Database(server, "board")
                with contextlib.closing(server.connect()) as connection, _explaining():
                    _create(connection, database.name)
                yield database
            if database.kept_as:
                with contextlib.suppress(OSError):  # the same was kept already
                    folder.rename(_folder() / f"{database.kept_as[:NAMES]}-{_boot()}")
        finally:
            postgres.delete(folder)


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[bool]:
    """Hold a folder that is being built; tells whether nobody else did."""
    mark = folder.with_name(f"{folder.name}.builder")
    with mark.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            mark.unlink(missing_ok=True)


def _named_server() -> Server | None:
    """The server that the user names, if any. Its address may hold a password: it never appears in an error."""
    url = os.environ.get(URL)
    if not url:
        named = any(os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))
        return Server({}) if named else None
    try:
        parameters = parse_dsn(url)
    except psycopg2.Error:
        raise DatabaseError(f"{URL} is no PostgreSQL address; write postgresql://user@host:port/database") from None
    if "sslpassword" in parameters:
        raise DatabaseError(f"{URL}: sslpassword would show in the process list; use a key without a password")
    return Server(parameters, parameters.pop("password", None))


def _maintenance(server: Server) -> contextlib.closing[Connection]:
    name = server.parameters.get("dbname") or os.environ.get("PGDATABASE") or "postgres"
    return contextlib.closing(server.connect(name))


def _names(server: Server) -> set[str]:
    with _maintenance(server) as connection, connection.cursor() as cursor, _explaining():
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


def _create(connection: Connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'").format(
                sql.Identifier(name)
            )
        )


@contextlib.contextmanager
def _new_on_server(server: Server) -> Iterator[Database]:
    database = Database(server, f"{PREFIX}{secrets.token_hex(8)}{PARTIAL}")
    named = sql.Identifier(database.name)
    with _maintenance(server) as connection, connection.cursor() as cursor, _explaining():
        _require_createdb(cursor)
        _drop_leftovers(cursor)
        # Held as long as this connection lives: whoever gets this lock knows that the builder is dead.
        cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [database.name])
        _create(connection, database.name)
        try:
            yield database
            if database.kept_as and PREFIX + database.kept_as[:NAMES] not in _names(server):
                kept_name = sql.Identifier(PREFIX + database.kept_as[:NAMES])
                with contextlib.suppress(psycopg2.errors.DuplicateDatabase):
                    cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(named, kept_name))
        finally:
            with contextlib.suppress(psycopg2.Error):  # what happened before is the news
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(named))


def _require_createdb(cursor: Cursor) -> None:
    cursor.execute("SELECT rolname, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
    role, allowed = cursor.fetchall()[0]
    if not allowed:
        raise DatabaseError(
            f"the role {role} may not create databases; have an administrator run ALTER ROLE {role} CREATEDB, "
            f"or unset {URL} to use the embedded server"
        )


def _drop_leftovers(cursor: Cursor) -> None:
    cursor.execute(
        "SELECT datname FROM pg_database WHERE starts_with(datname, %s) AND right(datname, %s) = %s "
        "AND pg_get_userbyid(datdba) = current_user AND pg_try_advisory_lock(hashtext(datname))",
        [PREFIX, len(PARTIAL), PARTIAL],
    )
    for (name,) in cursor.fetchall():
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
