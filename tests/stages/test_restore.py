from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.dump import archive, databases, programs, tables
from stages.workspace import paths
from stages.workspace.cache import file_hash
from stages.workspace.errors import DatabaseError

ROOT = Path(__file__).parents[2]
POLICY = {"name": "test", "kind": "binary", "labels": {"one": {"any": ["tag é 1"]}, "other": {"rest": True}}}
NEEDED = dict.fromkeys(tables.TABLES, 0)


def restore(**environment: str) -> subprocess.CompletedProcess[str]:
    return stage("restore", **environment)


def stage(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as DVC does."""
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(params: Any, **section: Any) -> str:
    """The error of a failed run, which must be one sentence and leave no files."""
    params(restore=section)
    done = restore()
    assert done.returncode == 1, done.stderr
    assert not Path("data/restore").exists() or not list(Path("data/restore").iterdir())
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


@pytest.fixture
def filled(board: Any) -> Any:
    board.sql(
        "INSERT INTO images SELECT i, '2013-01-02', now(), 1000, 900, 1000, 0, 0, 0, 0, 0, 0, 1, NULL, false, "
        "'image/png', 'PNG', 'a.png', 'x', 'hash', 'hash', 'a description' FROM generate_series(1, 500) i",
        "INSERT INTO tags SELECT i, 0, 'tag é ' || i, 'slug', 'rating' FROM generate_series(1, 50) i",
        "INSERT INTO image_taggings SELECT i, j FROM generate_series(1, 500) i, generate_series(1, 9, 3) j",
        "INSERT INTO image_intensities SELECT i, random(), 1.5, 2.5, 3.5 FROM generate_series(1, 500) i",
        "INSERT INTO comments SELECT i, i, 1, 'secret text of a user' FROM generate_series(1, 500) i",
        "INSERT INTO image_faves SELECT i, 1 FROM generate_series(1, 500) i",
        "INSERT INTO tag_aliases VALUES (1, 2)",
        "INSERT INTO image_hides VALUES (3, 'rule 1')",
    )
    return board


def test_needed_tables_and_columns_only(filled: Any, workplace: Path, params: Any) -> None:
    path = filled.dump(workplace / "board.pgdump")
    params(restore={"dump": "board.pgdump", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    done = restore()
    assert done.returncode == 0, done.stderr

    dump = archive.read(paths.LITE_DUMP)
    assert {entry.name for entry in dump.entries if entry.kind == "TABLE"} == set(tables.TABLES)
    assert {entry.kind for entry in dump.entries} <= {"TABLE", "TABLE DATA", "ENCODING", "STDSTRINGS", "SEARCHPATH"}
    for name, table in tables.TABLES.items():
        copy = next(entry.copy.decode() for entry in dump.entries if entry.kind == "TABLE DATA" and entry.name == name)
        assert set(re.findall(r"\w+", copy.split("(")[1].split(")")[0])) == {*table.columns, *table.optional_columns}

    summary = json.loads(paths.TABLES.read_text())
    assert summary["rows"] == NEEDED | {
        "images": 500, "tags": 50, "image_taggings": 1500, "image_intensities": 500, "tag_aliases": 1, "image_hides": 1
    }  # fmt: skip
    assert summary["dump"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert summary["dump"]["server_version"].startswith("18")
    assert summary["dump"]["archive_version"] == "1.16.0"


def test_same_tables_same_bytes(filled: Any, workplace: Path, params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.dump(workplace / "board.pgdump")
    seen = set()
    for jobs, cache in ((1, "one"), (2, "two")):
        params(restore={"dump": "board.pgdump", "jobs": jobs})
        assert restore(MLPY_CACHE=str(workplace / cache)).returncode == 0
        seen.add((paths.LITE_DUMP.read_bytes(), paths.TABLES.read_bytes()))
        time.sleep(1)  # a dump's header has the time in seconds
    assert len(seen) == 1


def test_normalise_makes_two_dumps_of_equal_boards_equal(filled: Any, tmp_path: Path, server: Any) -> None:
    first = filled.dump(tmp_path / "first")
    filled.sql(
        'CREATE DATABASE "copy" TEMPLATE board', "CREATE TABLE noise ()", "DROP TABLE noise", database="postgres"
    )
    time.sleep(1)
    second = type(filled).dump(type("Copy", (), {"server": server, "name": "copy"})(), tmp_path / "second")
    filled.sql('DROP DATABASE "copy"', database="postgres")
    assert first.read_bytes() != second.read_bytes()
    for path in (first, second):
        archive.normalise(path, path.with_suffix(".normal"))
    first, second = first.with_suffix(".normal"), second.with_suffix(".normal")
    assert first.read_bytes() == second.read_bytes()
    listed = programs.run([programs.binary("pg_restore"), "-l", first])
    assert "1970-01-01" in listed
    assert "TABLE DATA public comments" in listed
    assert "secret text of a user" in programs.run([programs.binary("pg_restore"), "-f", "-", first])


def test_a_dump_of_2020_has_fewer_tables_and_columns(filled: Any, workplace: Path, params: Any) -> None:
    filled.sql(
        "ALTER TABLE images DROP COLUMN hidden_from_users, ALTER COLUMN id TYPE integer",
        "ALTER TABLE tags DROP COLUMN category",
        "DROP TABLE image_intensities, tag_aliases, tag_implications, image_hides, image_sources",
        "CREATE TABLE user_links (id bigint)",
        "DELETE FROM image_taggings WHERE image_id > 200",
    )
    filled.dump(workplace / "board.pgdump")
    params(restore={"dump": "board.pgdump"}, extract={"root": "http://sample.localhost/img", "policy": POLICY})
    for name in ("restore", "extract"):
        done = stage(name)
        assert done.returncode == 0, done.stderr
    assert json.loads(paths.TABLES.read_text())["rows"]["image_hides"] == 0
    assert json.loads(paths.EXTRACT_SUMMARY.read_text())["labels"] == {"one": 200, "other": 300}


def test_a_file_that_is_not_a_dump_is_refused_in_one_sentence(filled: Any, workplace: Path, params: Any) -> None:
    assert "no.pgdump is missing" in refused(params, dump="no.pgdump")
    (workplace / "folder").mkdir()
    assert "is a folder" in refused(params, dump="folder")
    (workplace / "text").write_text("hello")
    assert "not a PostgreSQL dump" in refused(params, dump="text")
    (workplace / "none").touch()
    assert "is empty" in refused(params, dump="none")
    assert "plain SQL" in refused(params, dump=filled.dump(workplace / "sql", "-Fp", "-Z0").name)
    assert "tar" in refused(params, dump=filled.dump(workplace / "tar", "-Ft", "-Z0").name)


def test_an_incomplete_dump_is_refused_in_one_sentence(filled: Any, workplace: Path, params: Any) -> None:
    data = filled.dump(workplace / "board.pgdump").read_bytes()
    for size in (7, 300, len(data) // 2, len(data) - 1):
        (workplace / "cut").write_bytes(data[:size])
        assert refused(params, dump="cut") == "cut is damaged (truncated): fetch it again"
    (workplace / "newer").write_bytes(data[:6] + bytes([17]) + data[7:])
    assert "archive version 1.17" in refused(params, dump="newer")
    middle = max(archive.read(workplace / "board.pgdump").extents().values())[0] - 2000
    (workplace / "spoilt").write_bytes(data[:middle] + bytes(1000) + data[middle + 1000 :])
    assert re.fullmatch(r"spoilt is damaged \(.+\): fetch it again", refused(params, dump="spoilt"))
    for name in ("board.pgdump", "spoilt", "cut"):
        assert "not the published 000" in refused(params, dump=name, sha256="0" * 64)


def test_a_checksum_may_be_in_upper_case(filled: Any, workplace: Path, params: Any) -> None:
    path = filled.dump(workplace / "board.pgdump")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest().upper()
    params(restore={"dump": "board.pgdump", "sha256": sha256})
    done = restore()
    assert done.returncode == 0, done.stderr
    assert "not the published" in refused_again(params, dump="board.pgdump", sha256="F" * 64)


def refused_again(params: Any, **section: Any) -> str:
    """The error of a failed run, where an earlier one has succeeded."""
    params(restore=section)
    done = restore()
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_a_tilde_is_not_expanded_and_the_error_says_so(workplace: Path, params: Any) -> None:
    expected = f"restore.dump: ~ is not expanded; write the whole path, {Path('~/board.pgdump').expanduser()}"
    assert refused(params, dump="~/board.pgdump") == f"{expected}; it is '~/board.pgdump'"


def test_a_dump_of_a_part_of_a_board_is_refused_in_one_sentence(filled: Any, workplace: Path, params: Any) -> None:
    filled.dump(workplace / "inserts", "--inserts")
    assert "--inserts" in refused(params, dump="inserts")
    filled.dump(workplace / "schema", "--schema-only")
    assert "lacks the rows" in refused(params, dump="schema")
    filled.dump(workplace / "table", "--exclude-table=image_taggings")
    assert "lacks the table image_taggings" in refused(params, dump="table")
    filled.sql("ALTER TABLE images DROP COLUMN image_width")
    filled.dump(workplace / "column")
    assert "images lacks the column image_width" in refused(params, dump="column")


def test_a_killed_restore_leaves_nothing_that_a_later_one_uses(filled: Any, workplace: Path, params: Any) -> None:
    filled.sql("INSERT INTO tags SELECT i, 0, 'tag ' || i, 'slug' FROM generate_series(100, 200000) i")
    filled.dump(workplace / "board.pgdump")
    params(restore={"dump": "board.pgdump"})
    command = [sys.executable, "-m", "stages.restore"]

    def running() -> set[Path]:
        return set(databases.disk_folder().glob("*_partial/postmaster.pid"))

    started: set[Path] = set()
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
        while not (new := running() - started):
            assert process.poll() is None
            time.sleep(0.02)
        started |= new
        process.send_signal(end)
        assert process.wait() == (143 if end == signal.SIGTERM else -end)
    assert list(databases.disk_folder().glob("*")) == [], (
        "the second run deletes what the first left, and its own files"
    )
    assert not paths.LITE_DUMP.exists()
    assert restore().returncode == 0
    hash = file_hash(paths.LITE_DUMP)[:40]
    assert {path.name[:40] for path in databases.disk_folder().glob("*")} == {hash}


def test_a_lost_connection_is_one_sentence(filled: Any, workplace: Path, params: Any) -> None:
    with (
        databases.new() as database,
        pytest.raises(DatabaseError, match="lost the connection"),
        database.cursor() as own,
    ):
        own.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """A folder on a disk of 80 MB."""
    small = workplace / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", str(small)], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield small
    subprocess.run(["umount", str(small)], check=True)


def test_a_full_disk_is_one_sentence(filled: Any, workplace: Path, params: Any, small_disk: Path) -> None:
    filled.sql("INSERT INTO tags SELECT i, 0, repeat('x', 1900), 'slug' FROM generate_series(100, 40000) i")
    filled.dump(workplace / "board.pgdump")
    params(restore={"dump": "board.pgdump"})
    done = stage("restore", MLPY_CACHE=str(small_disk))
    assert done.returncode == 1
    assert "disk is full" in done.stderr.splitlines()[-1]
    assert list((small_disk / "postgres").glob("*partial")) == []


def test_a_disk_that_is_too_small_fails_early(
    filled: Any, workplace: Path, params: Any, own_server: str, small_disk: Path
) -> None:
    text = "(SELECT string_agg(sha512((i * 40 + j)::text::bytea)::text, '') FROM generate_series(1, 12) j)"
    filled.sql(f"INSERT INTO tags SELECT i, 0, {text}, 'slug' FROM generate_series(100, 10000) i")
    filled.dump(workplace / "board.pgdump")
    params(restore={"dump": "board.pgdump"}, extract={"root": "http://sample.localhost/img", "policy": POLICY})
    assert stage("restore").returncode == 0
    for name in ("restore", "extract"):
        done = stage(name, MLPY_CACHE=str(small_disk), MLPY_DATABASE_URL="")
        assert done.returncode == 1
        assert re.search(r"takes up to 0\.\d GB in .*small/postgres, where 0\.1 GB are free", done.stderr), done.stderr
        assert list((small_disk / "postgres").iterdir()) == []
