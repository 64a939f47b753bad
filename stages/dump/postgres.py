"""PostgreSQL servers: embedded clusters, which need no installation, and connections to any server.

A cluster listens on a Unix socket in a private folder, never on a network, and is tuned for data that can be rebuilt:
a power failure may destroy it.
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

from stages.dump.programs import binary, own_environment, run, server_user
from stages.workspace.errors import DatabaseError
from stages.workspace.files import is_locked

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
# A crash of the machine may destroy all of it: the dump is the truth, the database a cache.
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 8GB
checkpoint_timeout = 1d
"""


FATAL = ("FATAL:", "PANIC:")


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL server."""

    parameters: Mapping[str, str]
    """libpq's connection parameters, without the password."""
    password: str | None = field(default=None, repr=False)
    embedded: bool = False
    """Ours, which libpq's variables in the environment do not concern."""

    def dsn(self, database: str = "postgres") -> str:
        """A libpq connection string without the password, for psycopg2 and for `pg_dump -d`."""
        return make_dsn(**{**self.parameters, "dbname": database})

    def environment(self) -> dict[str, str]:
        """The environment of programs that connect: with the password, which the process list would show in `dsn`."""
        secret = {"PGPASSWORD": self.password} if self.password else {}
        return own_environment(libpq=not self.embedded) | secret

    def connect(self, database: str = "postgres") -> Connection:
        """Open a connection in autocommit mode.

        Raises:
            DatabaseError: if the server cannot be reached or refuses the connection.
        """
        secret: dict[str, Any] = {"password": self.password} if self.password else {}
        try:
            with _without_libpq_variables() if self.embedded else contextlib.nullcontext():
                connection: Connection = psycopg2.connect(self.dsn(database), **secret)
        except psycopg2.Error as error:
            reason = " ".join(str(error).split()) or "no reason given"
            raise DatabaseError(
                f"cannot connect to PostgreSQL: {reason}; check the server, MLPY_DATABASE_URL and libpq's PG* variables"
            ) from None
        connection.autocommit = True
        return connection


@contextlib.contextmanager
def _without_libpq_variables() -> Iterator[None]:
    """Hide PG* from libpq, which reads the environment in this process, too, whenever it connects."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Server]:
    """Run a server on the cluster in `folder`, which is created if it does not exist.

    Several processes may use the same cluster: the first starts the server, the last stops it. A server that a killed
    process left running is taken over.

    Raises:
        DatabaseError: if it cannot be started.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.users").open("a") as users:
        try:
            with _start_stop_lock(folder):
                # Every user of the cluster holds this lock shared; who gets it exclusively is the last one.
                fcntl.flock(users, fcntl.LOCK_SH)
                server = _running(folder) or _start(folder)
            yield server
        finally:
            with _start_stop_lock(folder):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # other processes still use the server
                else:
                    _stop(folder)


def delete(folder: Path) -> None:
    """Delete a cluster; stop the server first if a killed process left it running."""
    folder = folder.absolute()
    with _start_stop_lock(folder):
        if _socket_folder(folder):
            with contextlib.suppress(DatabaseError):
                _stop(folder, "immediate")
        for leftover in (folder, _unfinished(folder)):
            shutil.rmtree(leftover, ignore_errors=True)
        folder.with_name(f"{folder.name}.users").unlink(missing_ok=True)
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether a running process uses the cluster in `folder`."""
    return is_locked(folder.with_name(f"{folder.name}.users"))


@contextlib.contextmanager
def _start_stop_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time start or stop the server on a cluster."""
    with folder.with_name(f"{folder.name}.lock").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def _unfinished(folder: Path) -> Path:
    """Where initdb works until the cluster is complete."""
    return folder.with_name(f"{folder.name}.init")


def _control(folder: Path, program: str, *words: str | Path) -> None:
    """Run initdb or pg_ctl on `folder`, as the server's user."""
    user = server_user()
    # Another user may not enter the folders above (such as /root), but can use the working directory it is given.
    data: str | Path = "/proc/self/cwd" if user and sys.platform == "linux" else folder
    # pg_ctl ended halfway would leave a server that nobody knows of.
    run([binary(program), "-D", data, *words], user=user, folder=folder, patience=60 if program == "pg_ctl" else 0)


def _running(folder: Path) -> Server | None:
    """The server that runs on the cluster in `folder`, or None."""
    sockets = _socket_folder(folder)
    if sockets is None:
        return None
    server = _embedded(sockets)
    try:
        server.connect().close()
    except DatabaseError:
        return None
    return server


def _socket_folder(folder: Path) -> Path | None:
    """The folder of the server's socket, from its PID file; None if no server runs."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _embedded(sockets: Path) -> Server:
    return Server({"host": str(sockets), "port": PORT, "user": SUPERUSER}, embedded=True)


def _start(folder: Path) -> Server:
    user = server_user()
    if not folder.exists():
        _initialise(folder, user)
    # A socket's path is limited to 103 bytes, so it cannot be in `folder`.
    sockets = Path(tempfile.mkdtemp(prefix="mlpy-", dir=None if len(tempfile.gettempdir()) < 70 else "/tmp"))  # noqa: S108
    if user:
        os.chown(sockets, user.pw_uid, user.pw_gid)
    try:
        for attempt in range(5):  # a killed server's child processes may take a moment to exit
            try:
                options = f"-k {shlex.quote(str(sockets))}"
                _control(folder, "pg_ctl", "-w", "-t", "600", "-l", "server.log", "-o", options, "start")
                break
            except DatabaseError as error:
                if attempt == 4:
                    raise DatabaseError(f"{error}{_logged_reason(folder)}") from None
                time.sleep(0.5 * 2**attempt)
    except BaseException:
        shutil.rmtree(sockets, ignore_errors=True)
        raise
    return _embedded(sockets)


def _logged_reason(folder: Path) -> str:
    """What the server's log says last about why it did not start, to go after pg_ctl's error."""
    with contextlib.suppress(OSError):
        lines = (folder / "server.log").read_text(errors="replace").splitlines()
        return next((f" ({line[line.index(w) :]})" for line in reversed(lines) for w in FATAL if w in line), "")
    return ""


def _initialise(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Create a cluster in a temporary folder first, so that a killed initdb leaves nothing that looks complete."""
    aside = _unfinished(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    if user:
        os.chown(aside, user.pw_uid, user.pw_gid)
    # `trust` is safe: the socket's folder belongs to the server's user alone, and there is no network.
    _control(aside, "initdb", "-N", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C")
    with (aside / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS)
    aside.rename(folder)


def _stop(folder: Path, mode: str = "fast") -> None:
    sockets = _socket_folder(folder)
    if (folder / "postmaster.pid").exists():
        try:
            _control(folder, "pg_ctl", "-w", "-t", "60", "-m", mode, "stop")
        except DatabaseError:  # with damaged files, a server may never finish its last checkpoint
            _control(folder, "pg_ctl", "-w", "-t", "60", "-m", "immediate", "stop")
    if sockets:
        shutil.rmtree(sockets, ignore_errors=True)
