"""Live databases: embedded or on a server of the user's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import paths
from stages.booru import databases, postgres
from stages.errors import DatabaseError

ROOT = Path(__file__).parents[2]


def names(server: postgres.Server) -> set[str]:
    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mlpy%'")
        found = {name for (name,) in cursor.fetchall()}
    connection.close()
    return found


@pytest.mark.parametrize("place", ["embedded", "own server"])
def test_a_database_is_there_when_it_is_complete(place: str, server: Any, workplace: Path, request: Any) -> None:
    if place == "own server":
        request.getfixturevalue("own_server")
    hash = os.urandom(32).hex()
    before = names(server)
    with contextlib.suppress(KeyError), databases.new() as database:
        database.keep(hash)
        raise KeyError
    with databases.new():
        pass
    with databases.kept(hash) as nothing:
        assert nothing is None
    assert names(server) == before
    with databases.new() as database:
        with database.cursor() as cursor:
            cursor.execute("CREATE TABLE here AS SELECT 7 AS x")
        database.keep(hash)
    for _ in range(2):
        with databases.kept(hash) as again:
            assert again
            with again.cursor() as cursor:
                cursor.execute("SELECT x FROM here")
                assert cursor.fetchall() == [(7,)]


def test_a_server_is_shared_by_those_who_hold_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a cluster"
    with postgres.cluster(folder) as first:
        with postgres.cluster(folder) as second:
            assert second == first
        first.connect().close()
    assert not (folder / "postmaster.pid").exists()
    assert not Path(first.parameters["host"]).exists()
    with pytest.raises(DatabaseError):
        first.connect()


def test_a_server_whose_starter_was_killed_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    code = (
        "import os, sys; from pathlib import Path; from stages.booru import postgres\n"
        "with postgres.cluster(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=False)
    started = (folder / "postmaster.pid").read_text().splitlines()[0]
    with postgres.cluster(folder) as server:
        server.connect().close()
        assert (folder / "postmaster.pid").read_text().splitlines()[0] == started
    assert not (folder / "postmaster.pid").exists()


def test_a_role_that_may_not_create_databases_is_told_what_to_do(
    server: Any, own_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = server.connect()
    connection.cursor().execute("CREATE ROLE poor LOGIN")
    connection.close()
    monkeypatch.setenv("MLPY_DATABASE_URL", own_server.replace("postgres@", "poor@"))
    with pytest.raises(DatabaseError, match=r"the role poor may not create databases; .* ALTER ROLE poor CREATEDB"):
        databases.new().__enter__()


def test_libpq_variables_name_a_server_too(server: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", server.parameters["host"])
    monkeypatch.setenv("PGUSER", "postgres")
    with databases.new() as database:
        assert database.name in names(server)


def test_a_password_is_nowhere(
    board: Any, own_server: str, params: Any, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    secret = "s3cret-of-the-user"
    board.tag(1, "gun")
    board.image(1, [1])
    board.dump(Path("board.pgdump"))
    params(restore={"dump": "board.pgdump"})
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLPY_DATABASE_URL": own_server.replace("postgres@", f"postgres:{secret}@"),
    }
    command = [sys.executable, "-m", "stages.restore"]
    with Path("log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        seen = set()
        while process.poll() is None:
            seen |= {line for line in command_lines() if b"pg_restore" in line or b"pg_dump" in line}
            assert not [line for line in command_lines() if secret.encode() in line]
    assert process.returncode == 0, Path("log").read_text()
    assert seen, "the programs were seen at work"
    assert secret not in Path("log").read_text() + paths.TABLES.read_text()
    for url in (
        f"postgresql://me:{secret}@127.0.0.1:1/x",
        f"postgresql://me:{secret}@%zz",
        f"host=/none password={secret}",
    ):
        monkeypatch.setenv("MLPY_DATABASE_URL", url)
        with pytest.raises(DatabaseError) as refused:
            databases.new().__enter__()
        assert secret not in str(refused.value)


def command_lines() -> list[bytes]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes())
        except OSError:
            continue
    return found
