"""Cache of live databases: each is named by the SHA-256 of its dump, and either complete or absent.

By default each is an embedded cluster of its own in the cache folder. With `MLPY_DATABASE_URL` or libpq's `PGHOST`,
`PGHOSTADDR` or `PGSERVICE`, each is a database on that server. All of them are safe to delete: the dump is the truth.
An embedded cluster is never flushed to the disk, which would take longer than all other work, so it is used only until
the machine reboots: its name includes the boot's id.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)
from psycopg2.extensions import parse_dsn

from stages.dump import postgres
from stages.dump.postgres import Server
from stages.dump.programs import run
from stages.workspace.cache import cache_root
from stages.workspace.errors import DatabaseError

URL = "MLPY_DATABASE_URL"
URL_FORM = re.compile(
    r"postgres(?:ql)?://(?:(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?@)?"
    r"(?:[\w.,~-]|%[0-9A-Fa-f]{2}|\[[0-9A-Fa-f:.]+\])*(?::\d*(?:,[\w.~-]*:\d*)*)?(?:/[^/?#@]*)?(?:\?[^#@]*)?",
    re.ASCII,
)
"""user:password@hosts:ports/database?parameters, with nothing unencoded in user and password."""
PREFIX = "mlpy_"
PARTIAL = "_partial"
KEPT = 3
"""Databases to keep: those of the latest dumps, to go back and forth between them."""
DAMAGE = ("XX", "58", "42P01", "42703")
"""Beginnings of the error codes of a damaged database: bad pages, lost files, missing tables and columns."""
NAME_DIGITS = 40
"""Hexadecimal digits of the hash in a name; PostgreSQL truncates names at 63 bytes."""


class DamagedDatabaseError(DatabaseError):
    """A cached database is not whole any more."""


class _Cursor(Cursor):
    """A cursor whose statements a signal can end: libpq waits in C, where no handler of Python runs."""

    def execute(self, query: Any, values: Any = None) -> None:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(super().execute, query, values)
            try:
                wait([running])
            except BaseException:
                self.connection.cancel()
                raise
        running.result()


@dataclass
class BoardDatabase:
    """A database on a running server that holds a board's tables."""

    server: Server
    name: str
    kept_as: str | None = field(default=None, init=False)
    """The hash passed to `keep`."""

    @property
    def dsn(self) -> str:
        """A libpq connection string without the password."""
        return self.server.dsn(self.name)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """A cursor on a connection of its own, in autocommit mode.

        Raises:
            DatabaseError: for any of PostgreSQL's errors inside the block.
        """
        connecting = contextlib.closing(self.server.connect(self.name))
        with connecting as connection, connection.cursor(cursor_factory=_Cursor) as cursor, _translated_errors():
            yield cursor

    def version(self) -> int:
        """The server's major version, for example 17."""
        with self.cursor() as cursor:
            return int(cursor.connection.server_version) // 10_000

    def keep(self, hash: str) -> None:
        """Keep this new database in the cache, under the hash of its dump, when the block of `new` ends."""
        self.kept_as = hash


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise _translated(error) from error


def _translated(error: psycopg2.Error) -> DatabaseError:
    """The error to raise instead of one of PostgreSQL's."""
    if error.pgcode == "53100" or "No space left on device" in str(error):
        return DatabaseError(
            "PostgreSQL: the disk is full; free some space, or set MLPY_CACHE to a folder on a larger disk"
        )
    reason = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return DatabaseError(f"lost the connection to PostgreSQL ({reason[0]}); run the command again")
    kind = DamagedDatabaseError if str(error.pgcode).startswith(DAMAGE) else DatabaseError
    return kind(f"PostgreSQL reported an error: {reason[0]}")


@contextlib.contextmanager
def new() -> Iterator[BoardDatabase]:
    """Create an empty database. It is deleted when the block ends, unless `keep` was called and no error was raised."""
    with _new_on_server(server) if (server := _configured_server()) else _new_cluster() as database:
        yield database


@contextlib.contextmanager
def cached(hash: str) -> Iterator[BoardDatabase | None]:
    """The database kept under the hash of its dump, or None.

    Raises:
        DamagedDatabaseError: if its server does not start, or refuses a connection.
    """
    if server := _configured_server():
        with _maintenance(server) as cursor:
            name = _kept_name(cursor, hash)
            if known := _is_ours(cursor, name):
                _mark_used(cursor, name)
        yield BoardDatabase(server, name) if known else None
    elif (folder := _kept_folder(hash)).exists():
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(postgres.cluster(folder))
                server.connect("board").close()
            except DatabaseError as error:
                raise DamagedDatabaseError(str(error)) from error
            yield BoardDatabase(server, "board")
    else:
        yield None


def discard(hash: str) -> None:
    """Delete the database kept under the hash of its dump."""
    if server := _configured_server():
        with _maintenance(server) as cursor:
            _drop(cursor, _kept_name(cursor, hash))
    else:
        postgres.delete(_kept_folder(hash))


def disk_folder() -> Path | None:
    """The folder that embedded databases are created in; None if a server is configured."""
    return None if _configured_server() else _folder()


def _folder() -> Path:
    folder = cache_root() / "postgres"
    folder.mkdir(exist_ok=True)
    return folder


def _kept_folder(hash: str) -> Path:
    return _folder() / f"{hash[:NAME_DIGITS]}-{_boot_id()}"


@functools.cache
def _boot_id() -> str:
    """Identifies the current boot of the machine."""
    with contextlib.suppress(FileNotFoundError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return run(["sysctl", "-n", "kern.bootsessionuuid"]).strip()  # macOS


@contextlib.contextmanager
def _new_cluster() -> Iterator[BoardDatabase]:
    _delete_leftovers()
    folder = _folder() / f"{secrets.token_hex(8)}{PARTIAL}"
    with _build_lock(folder):
        try:
            with postgres.cluster(folder) as server:
                database = BoardDatabase(server, "board")
                with _maintenance(server) as cursor:
                    _create(cursor, database.name)
                yield database
            if database.kept_as:
                with contextlib.suppress(OSError):  # a parallel run has kept the same database already
                    folder.rename(_kept_folder(database.kept_as))
                    _delete_older()
        finally:
            postgres.delete(folder)


def _delete_leftovers() -> None:
    """Delete clusters that killed processes left half built, and those from before the last reboot."""
    for leftover in (mark.with_suffix("") for mark in _folder().glob(f"*{PARTIAL}.builder")):
        with _build_lock(leftover) as acquired:
            if acquired:  # so the process that was building it is dead
                postgres.delete(leftover)
    for outdated in _folder().glob(f"{'[0-9a-f]' * NAME_DIGITS}-*"):
        if outdated.is_dir() and outdated.name[NAME_DIGITS + 1 :] != _boot_id() and not postgres.in_use(outdated):
            postgres.delete(outdated)


def _delete_older() -> None:
    """Delete the clusters that were not used for longest."""
    kept = [folder for folder in _folder().glob(f"{'[0-9a-f]' * NAME_DIGITS}-*") if folder.is_dir()]
    # A server that starts or stops changes its folder.
    for folder in sorted(kept, key=lambda folder: folder.stat().st_mtime, reverse=True)[KEPT:]:
        if not postgres.in_use(folder):
            postgres.delete(folder)


@contextlib.contextmanager
def _build_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder while a cluster is built in it; yields whether the lock was free."""
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


def _configured_server() -> Server | None:
    """The server that the environment names, if any. The URL may hold a password, so no error quotes it."""
    url = os.environ.get(URL)
    if not url:
        configured = any(os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))
        return Server({}) if configured else None
    if "://" in url and not URL_FORM.fullmatch(url):
        # libpq would take a part of the password for the host or the port, and quote it in its error.
        raise DatabaseError(
            f"{URL} is not a PostgreSQL URL; write it as postgresql://user:password@host:port/database, with special "
            "characters of the user name and the password percent-encoded (@ is %40, / is %2F, : is %3A, # is %23)"
        )
    try:
        parameters = parse_dsn(url)
    except psycopg2.Error:
        raise DatabaseError(
            f"{URL} is not a PostgreSQL URL; write it as postgresql://user@host:port/database"
        ) from None
    # Programs get the connection string as an argument, and other users can read a process's arguments.
    if "sslpassword" in parameters:
        raise DatabaseError(
            f"{URL} contains sslpassword, which the process list would show; use a key without a password"
        )
    return Server(parameters, parameters.pop("password", None))


@contextlib.contextmanager
def _maintenance(server: Server) -> Iterator[Cursor]:
    """A cursor on a database that exists already, to create and drop others from."""
    configured = not server.embedded and os.environ.get("PGDATABASE")
    name = server.parameters.get("dbname") or configured or "postgres"
    with contextlib.closing(server.connect(name)) as connection, connection.cursor() as cursor, _translated_errors():
        yield cursor


def _kept_name(cursor: Cursor, hash: str) -> str:
    """The name of a kept database: each role has its own."""
    cursor.execute("SELECT current_user")
    ((role,),) = cursor.fetchall()
    return f"{PREFIX}{hash[:NAME_DIGITS]}_{hashlib.sha256(role.encode()).hexdigest()[:8]}"


def _is_ours(cursor: Cursor, name: str) -> bool:
    """Whether a database exists.

    Raises:
        DatabaseError: if it belongs to another role, who may have put anything into it.
    """
    cursor.execute("SELECT pg_get_userbyid(datdba), current_user FROM pg_database WHERE datname = %s", [name])
    for owner, role in cursor.fetchall():
        if owner != role:
            raise DatabaseError(
                f"the database {name} belongs to the role {owner}, not to {role}; drop it or change its owner, "
                f"or set {URL} to another server"
            )
        return True
    return False


def _create(cursor: Cursor, name: str) -> None:
    # Locale C sorts by code point, as Arrow and Python do. Only template0 can be copied with another locale.
    cursor.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'").format(
            sql.Identifier(name)
        )
    )


def _drop(cursor: Cursor, name: str) -> None:
    cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _mark_used(cursor: Cursor, name: str) -> None:
    """Note in a database's comment when it was used, for `_drop_older`."""
    cursor.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
    ((now,),) = cursor.fetchall()
    cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(f"used {now}")))


@contextlib.contextmanager
def _new_on_server(server: Server) -> Iterator[BoardDatabase]:
    database = BoardDatabase(server, f"{PREFIX}{secrets.token_hex(8)}{PARTIAL}")
    with _maintenance(server) as cursor:
        _require_createdb(cursor)
        _drop_leftovers(cursor)
        # Held until this connection closes: a process that gets this lock knows that the builder is dead.
        cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [database.name])
        try:
            _create(cursor, database.name)
            yield database
            if database.kept_as:
                _keep(cursor, database)
        finally:
            with contextlib.suppress(psycopg2.Error):  # an error in the block is the one to report
                _drop(cursor, database.name)


def _keep(cursor: Cursor, database: BoardDatabase) -> None:
    """Rename a database to the name that it is found by, unless a parallel run has kept the same one already."""
    name = _kept_name(cursor, database.kept_as or "")
    if _is_ours(cursor, name):
        return
    with contextlib.suppress(psycopg2.errors.DuplicateDatabase):
        words = map(sql.Identifier, (database.name, name))
        cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*words))
        _mark_used(cursor, name)
        _drop_older(cursor)


def _drop_older(cursor: Cursor) -> None:
    """Drop those of our databases that were not used for longest."""
    cursor.execute(
        "SELECT datname FROM pg_database WHERE datname ~ %s AND pg_get_userbyid(datdba) = current_user "
        "ORDER BY shobj_description(oid, 'pg_database') DESC NULLS LAST OFFSET %s",
        [rf"^{PREFIX}[0-9a-f]{{{NAME_DIGITS}}}(_[0-9a-f]{{8}})?$", KEPT],
    )
    for (name,) in cursor.fetchall():
        with contextlib.suppress(psycopg2.errors.ObjectInUse):
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def _require_createdb(cursor: Cursor) -> None:
    cursor.execute("SELECT rolname, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
    role, allowed = cursor.fetchall()[0]
    if not allowed:
        raise DatabaseError(
            f"the role {role} may not create databases; ask an administrator to run ALTER ROLE {role} CREATEDB, "
            f"or unset {URL} to use the embedded server"
        )


def _drop_leftovers(cursor: Cursor) -> None:
    """Drop our databases that killed processes left half built."""
    cursor.execute(
        "SELECT datname FROM pg_database WHERE starts_with(datname, %s) AND right(datname, %s) = %s "
        "AND pg_get_userbyid(datdba) = current_user AND pg_try_advisory_lock(hashtext(datname))",
        [PREFIX, len(PARTIAL), PARTIAL],
    )
    for (name,) in cursor.fetchall():
        _drop(cursor, name)
        cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
