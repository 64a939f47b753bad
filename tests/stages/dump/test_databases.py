"""The cache of databases: embedded, or on the user's own server."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.dump import databases, postgres
from stages.philomena import board
from stages.workspace.errors import DatabaseError

ROOT = Path(__file__).parents[3]
SECRET = "s3cret-of-the-user"


def names(server: postgres.Server) -> set[str]:
    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mlpy%'")
        databases_there = {name for (name,) in cursor.fetchall()}
    connection.close()
    return databases_there


@pytest.mark.parametrize("place", ["embedded", "own server"])
def test_a_database_is_kept_only_when_it_is_complete(place: str, server: Any, workplace: Path, request: Any) -> None:
    if place == "own server":
        request.getfixturevalue("own_server")
    hash = os.urandom(32).hex()
    before = names(server)
    with contextlib.suppress(KeyError), databases.new() as database:
        database.keep(hash)
        raise KeyError
    with databases.new():
        pass
    with databases.cached(hash) as nothing:
        assert nothing is None
    assert names(server) == before
    with databases.new() as database:
        with database.cursor() as cursor:
            cursor.execute("CREATE TABLE here AS SELECT 7 AS x")
        database.keep(hash)
    for _ in range(2):
        with databases.cached(hash) as again:
            assert again
            with again.cursor() as cursor:
                cursor.execute("SELECT x FROM here")
                assert cursor.fetchall() == [(7,)]


def test_processes_that_use_the_same_folder_share_a_server(tmp_path: Path) -> None:
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
        "import os, sys; from pathlib import Path; from stages.dump import postgres\n"
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


def as_role(server: postgres.Server, own_server: str, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `role`, if it does not exist, and work as it."""
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
        if not cursor.rowcount:
            cursor.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
    monkeypatch.setenv("MLPY_DATABASE_URL", own_server.replace("postgres@", f"{role}@"))


def kept(hash: str) -> str:
    with databases.new() as database:
        database.keep(hash)
    with databases.cached(hash) as again:
        assert again
        return again.name


def test_two_roles_on_one_server_have_a_database_each(
    server: Any, own_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = os.urandom(32).hex()
    as_role(server, own_server, "ann", monkeypatch)
    first = kept(hash)
    as_role(server, own_server, "zoe", monkeypatch)
    with databases.cached(hash) as nothing:
        assert nothing is None
    second = kept(hash)
    assert first != second
    with databases.cached(hash) as database, database.cursor() as cursor:  # type: ignore[union-attr]
        cursor.execute("SELECT current_user, pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [second])
        assert cursor.fetchall() == [("zoe", "zoe")]


def test_a_database_that_another_role_made_under_our_name_is_not_trusted(
    server: Any, own_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = os.urandom(32).hex()
    as_role(server, own_server, "ann", monkeypatch)
    name = kept(hash)
    as_role(server, own_server, "zoe", monkeypatch)
    with contextlib.closing(server.connect()) as connection:
        connection.cursor().execute(f'ALTER DATABASE "{name}" OWNER TO zoe')
    as_role(server, own_server, "ann", monkeypatch)
    with pytest.raises(DatabaseError, match=f"the database {name} belongs to the role zoe, not to ann"):
        kept(hash)


@pytest.mark.parametrize("place", ["embedded", "own server"])
def test_only_the_databases_used_last_are_kept(
    place: str, server: Any, workplace: Path, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "own server":
        as_role(server, request.getfixturevalue("own_server"), "keeper", monkeypatch)
    hashes = [os.urandom(32).hex() for _ in range(5)]
    for hash in hashes[:3]:
        kept(hash)
    with databases.cached(hashes[0]) as used:
        assert used
        kept(hashes[3])
        kept(hashes[4])
        with used.cursor() as cursor:
            cursor.execute("SELECT 1")
    there = []
    for hash in hashes:
        with databases.cached(hash) as database:
            there.append(database is not None)
    assert there[1:] == [False, False, True, True]
    assert there[0], "it was in use"


def test_libpq_variables_name_a_server_too(server: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", server.parameters["host"])
    monkeypatch.setenv("PGUSER", "postgres")
    with databases.new() as database:
        assert database.name in names(server)


@pytest.mark.parametrize(
    "address", ["postgresql://me:{}@127.0.0.1:1/x", "postgresql://me:{}@%zz", "host=/none password={}"]
)
def test_a_password_is_in_no_error_of_an_address(
    address: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPY_DATABASE_URL", address.format(SECRET))
    with pytest.raises(DatabaseError) as error:
        databases.new().__enter__()
    assert SECRET not in str(error.value)


FOREIGN = {
    "PGPORT": "5433",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/no/such/file",
    "PGOPTIONS": "-c search_path=nowhere",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGUSER": "nobody",
    "PGDATABASE": "nowhere",
    "PGPASSFILE": "/no/such/file",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PGAPPNAME": "another",
}
"""Variables of a user's own server, of which none names a host."""


def test_the_embedded_server_ignores_libpqs_variables(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = {"id": 1, "name": "étoile", "slug": "etoile", "category": None}
    board.write_dump({"tags": [tag]}, workplace / "cluster", workplace / "plain.pgdump")
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    board.write_dump({"tags": [tag]}, workplace / "cluster", workplace / "foreign.pgdump")
    assert (workplace / "foreign.pgdump").read_bytes() == (workplace / "plain.pgdump").read_bytes()
    assert {name: os.environ[name] for name in FOREIGN} == FOREIGN, "they are hidden, not deleted"


@given(
    st.text("KXZJ@/:#?%&= é\\'", min_size=4, max_size=20), st.sampled_from(["127.0.0.1:1", "[::1]:1", "localhost:1"])
)
@example("KXZJ@KXZJ", "127.0.0.1:1")
@example("KXZJ/KXZJ", "127.0.0.1:1")
@example("KXZJ#KXZJ", "127.0.0.1:1")
@example("KXZJ:KXZJ", "127.0.0.1:1")
@example("KXZJ%KXZJ", "127.0.0.1:1")
def test_no_part_of_a_password_is_in_an_error(password: str, address: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPY_DATABASE_URL", f"postgresql://user:{password}@{address}/board")
        with pytest.raises(DatabaseError) as caught, databases.cached("0" * 64):
            pass
    assert not re.search("[KXZJ]", str(caught.value))


def test_a_password_with_special_characters_is_to_be_percent_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_DATABASE_URL", "postgresql://user:a@b@127.0.0.1/board")
    with pytest.raises(DatabaseError, match=r"percent-encoded \(@ is %40"), databases.cached("0" * 64):
        pass
    monkeypatch.setenv("MLPY_DATABASE_URL", "postgresql://user:a%40b@127.0.0.1:1/board")
    with pytest.raises(DatabaseError, match="cannot connect to PostgreSQL"), databases.cached("0" * 64):
        pass
