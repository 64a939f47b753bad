"""`make clean-cache` deletes what can be computed again and says what that frees; the rest is kept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stages.dump import databases
from stages.workspace.cache import once

ROOT = Path(__file__).parents[3]


def clean(*options: str) -> str:
    words = ["make", "-s", "--old-file=.venv/.ready", "clean-cache", f"CLEAN={' '.join(options)}"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cache(workplace: Path) -> Path:
    """A cache root with something of each kind."""
    once("decoded", "pixels.npy", lambda path: path.write_bytes(os.urandom(3_000_000)) and None)
    root = Path(os.environ["MLPY_CACHE"])
    for kind in ("pictures", "sample", "training/run"):
        (root / kind).mkdir(parents=True)
        (root / kind / "file").write_bytes(os.urandom(2_000_000))
    (root / "crawl-host.json").write_text("{}")
    return root


def test_what_was_fetched_is_kept_and_named(cache: Path) -> None:
    said = clean()
    assert {path.name for path in cache.rglob("*") if path.is_file()} == {"file"}
    assert {path.name for path in cache.iterdir() if (path / "file").exists()} == {"pictures", "sample"}
    assert "freed     0.003 GB  decoded" in said
    assert "freed     0.002 GB  training" in said
    assert "kept      0.002 GB  pictures: downloaded pictures" in said
    assert f"freed     0.005 GB  of {cache}" in said


def test_all_of_it_goes_only_when_told_to_and_says_so(cache: Path) -> None:
    said = clean("--all")
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert "freed     0.002 GB  pictures: downloaded pictures and their index; without them" in said


def test_what_is_linked_elsewhere_frees_nothing(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "shard").hardlink_to(cache / "pictures/file")
    assert "kept      0.000 GB  pictures" in clean()
    assert (tmp_path / "shard").stat().st_size == 2_000_000


def test_a_database_in_use_goes_on(cache: Path) -> None:
    with databases.new() as database:
        assert "of it in use and kept" in clean()
        with database.cursor() as cursor:
            cursor.execute("CREATE TABLE here AS SELECT 7")
        database.keep("0" * 64)
    with databases.cached("0" * 64) as again:
        assert again
    assert "freed" in clean()
    with databases.cached("0" * 64) as nothing:
        assert nothing is None
