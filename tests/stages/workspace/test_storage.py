"""A disk or folder that cannot be used ends every stage in one sentence, without a traceback or a half-written file."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clones import Clone, after_smoke

from stages.workspace.storage import ADVICE, storage_trouble


@pytest.mark.parametrize("number", sorted(ADVICE), ids=lambda number: errno.errorcode[number])
def test_each_error_of_the_system_names_the_path_and_what_to_do(number: int) -> None:
    error = OSError(number, os.strerror(number), "/a folder/file")
    assert storage_trouble(error) == f"/a folder/file: {ADVICE[number]}"


def test_an_error_inside_another_one_is_found() -> None:
    error = RuntimeError("the library's own words")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", b"/disk/file")
    assert storage_trouble(error).startswith("/disk/file: the disk is full: free some space")


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone", "x"), OSError("no number"), KeyError("x")], ids=str)
def test_any_other_error_is_a_bug(error: Exception) -> None:
    assert storage_trouble(error) == ""


def test_what_sqlite_meets_is_told_alike(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "absent" / "index.sqlite")
    assert storage_trouble(caught.value).startswith("the index of the picture store: permission denied")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return after_smoke(tmp_path_factory)


def run(clone: Clone, stage: str, cache: Path, prepare: Callable[[], None] | None = None) -> str:
    """Run a stage that must fail -> what it printed last."""
    before = sorted(clone.folder.glob("data/**/*"))
    done = subprocess.run(
        ["python", "-m", f"stages.{stage}"],
        cwd=clone.folder,
        env=(clone.environment if prepare else clone.forking) | {"MLPY_CACHE": str(cache)},
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(clone.folder.glob("data/**/*")) == before
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("stage", ["restore", "extract", "download", "split", "train"])
def test_a_cache_root_that_is_a_file(clone: Clone, tmp_path: Path, stage: str) -> None:
    cache = tmp_path / "cache"
    cache.write_text("not a folder")
    error = run(clone, stage, cache)
    assert error.startswith(f"error: {cache}")
    assert "set MLPY_CACHE to a folder" in error


@pytest.mark.parametrize("stage", ["download", "split", "train"])
def test_a_file_that_cannot_be_written(clone: Clone, tmp_path: Path, stage: str) -> None:
    """As on a full disk, but for any user and any disk: the process may write no more than 1,000 bytes to a file."""
    error = run(clone, stage, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    assert error.startswith("error: ")
    assert "raise `ulimit -f`" in error or "disk" in error
