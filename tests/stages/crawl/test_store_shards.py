"""Finished shards: they hold their pictures' bytes, are reused, never written twice, and not used if changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_store import body, ok, put, segments, wanted

from stages.crawl import store as module
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.workspace import shards
from stages.workspace.errors import CrawlError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


@pytest.fixture
def store(folder: Path) -> Iterator[PictureStore]:
    with PictureStore(folder) as store:
        yield store


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", -1.0)


def rows(store: PictureStore, *numbers: int) -> list[tuple[WantedPicture, DownloadResult]]:
    pictures = [wanted(number) for number in numbers]
    return [(picture, result) for picture, result in zip(pictures, store.results(pictures), strict=True) if result]


def bodies(store: PictureStore, *numbers: int) -> list[bytes]:
    return [store.read(picture, result) for picture, result in rows(store, *numbers)]


@pytest.mark.usefixtures("no_patience")
def test_a_shard_has_its_pictures_bytes_and_they_are_on_the_disk_once(
    folder: Path, store: PictureStore, tmp_path: Path
) -> None:
    numbers = range(3, 3 + 2 * shards.ROWS + 5)
    put(store, *numbers)
    shard = store.shard(rows(store, *numbers))
    expected = [{**wanted(n)._asdict(), "bytes": body(n), "sha256": ok(body(n)).sha256} for n in numbers]
    shards.write(tmp_path / "plain.parquet", ({**row, "width": 40, "height": 30, "format": "png"} for row in expected))
    assert shard.read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    (folder / f".{shard.name}.ab12").write_bytes(b"what a kill left")
    store.sweep()
    assert [file for file in folder.iterdir() if not file.name.startswith("index.")] == [shard]
    assert bodies(store, *numbers) == [body(number) for number in numbers]


def test_the_same_pictures_are_the_same_shard_which_is_not_written_again(store: PictureStore) -> None:
    put(store, *range(10))
    first = store.shard(rows(store, *range(10)))
    known = first.stat()
    again = store.shard(rows(store, *range(10)))
    assert again == first
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (known.st_ino, known.st_mtime_ns)
    assert store.shard(rows(store, *range(9))) != first


@pytest.mark.usefixtures("no_patience")
def test_a_segment_stays_until_all_its_pictures_are_in_shards(folder: Path, store: PictureStore) -> None:
    put(store, 1, 2, 3)
    store.shard(rows(store, 1, 2))
    store.sweep()
    assert len(segments(folder)) == 1
    store.shard(rows(store, 3))
    store.sweep()
    assert segments(folder) == []
    put(store, 4)  # its segment went: another one is begun
    assert bodies(store, 1, 2, 3, 4) == [body(number) for number in (1, 2, 3, 4)]


def test_a_segment_that_was_written_a_moment_ago_stays(folder: Path, store: PictureStore) -> None:
    put(store, 1)
    store.shard(rows(store, 1))
    store.sweep()
    assert len(segments(folder)) == 1


@pytest.mark.usefixtures("no_patience")
def test_a_picture_that_another_run_moves_meanwhile_can_still_be_read(folder: Path, store: PictureStore) -> None:
    put(store, 1, 2)
    before = rows(store, 1, 2)
    with store.reopen() as other:
        other.shard(rows(other, 1, 2))
        other.sweep()
    assert segments(folder) == []
    assert [store.read(*row) for row in before] == [body(1), body(2)]


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "gone"])
def test_a_shard_that_was_changed_through_a_link_is_not_used(
    folder: Path, store: PictureStore, tmp_path: Path, damage: str
) -> None:
    put(store, *range(10))
    shard = store.shard(rows(store, *range(10)))
    store.sweep()
    good = shard.read_bytes()
    link = tmp_path / "shard-00000.parquet"
    os.link(shard, link)
    link.chmod(0o644)  # as `dvc unprotect` would, had it not made a copy first
    if damage == "gone":
        shard.unlink()
    else:
        link.write_bytes({"changed": b"!" * len(good), "cut": good[:-9], "longer": good + b"!"}[damage])
    with pytest.raises(CrawlError, match="has damaged pictures; run again to download them"):
        store.shard(rows(store, *range(10)))
    assert rows(store, *range(10)) == []
    put(store, *range(10))
    assert store.shard(rows(store, *range(10))).read_bytes() == good


@pytest.mark.usefixtures("no_patience")
def test_a_shard_that_was_only_touched_is_checked_and_stays_with_its_links(store: PictureStore) -> None:
    put(store, *range(10))
    shard = store.shard(rows(store, *range(10)))
    store.sweep()
    good, inode = shard.read_bytes(), shard.stat().st_ino
    os.utime(shard, (1, 1))
    assert store.shard(rows(store, *range(10))).read_bytes() == good
    assert shard.stat().st_ino == inode
    assert list(shard.parent.glob(".*")) == []


DVC = "[core]\n no_scm = true\n analytics = false\n check_update = false\n[cache]\n type = hardlink,copy\n"


def test_dvc_may_link_protect_and_unprotect_a_shard_without_changing_ours(store: PictureStore, tmp_path: Path) -> None:
    def dvc(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", "-q", *words], cwd=tmp_path, check=True)

    put(store, *range(10))
    shard = store.shard(rows(store, *range(10)))
    good, inode = shard.read_bytes(), shard.stat().st_ino
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/shard-00000.parquet"
    os.link(shard, out)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(DVC)
    dvc("add", "out")
    assert out.stat().st_ino == inode  # the bytes are on the disk once
    dvc("unprotect", "out")
    out.write_bytes(b"mine now")
    out.unlink()
    dvc("checkout", "out")
    assert out.read_bytes() == good
    again = store.shard(rows(store, *range(10)))
    assert (again.read_bytes(), again.stat().st_ino) == (good, inode)


def test_an_unfinished_file_is_not_used_as_a_shard(folder: Path, store: PictureStore, tmp_path: Path) -> None:
    with PictureStore(tmp_path / "other") as other:
        put(other, 1)
        name = other.shard(rows(other, 1)).name
    (folder / name).write_bytes(b"half")
    put(store, 1)
    assert store.shard(rows(store, 1)).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(("days", "left"), [(6, 2), (8, 1)])
def test_an_unused_shard_is_deleted_after_a_week(folder: Path, store: PictureStore, days: int, left: int) -> None:
    put(store, 1, 2)
    store.shard(rows(store, 1))
    store.shard(rows(store, 1, 2))
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.execute("UPDATE shards SET used = ?", [time.time() - days * 24 * 3600])
    store.sweep()
    assert len([*folder.glob("*.parquet")]) == left
    assert bodies(store, 1, 2) == [body(1), body(2)]


def test_a_used_shard_stays(folder: Path, store: PictureStore) -> None:
    put(store, 1, 2)
    few = rows(store, 1)
    store.shard(few)
    store.shard(rows(store, 1, 2))
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.execute("UPDATE shards SET used = ?", [time.time() - 8 * 24 * 3600])
    store.shard(few)
    store.sweep()
    assert len([*folder.glob("*.parquet")]) == 2


ACTS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9)),
    st.tuples(st.just("shard"), st.sets(st.integers(0, 9), min_size=1)),
    st.tuples(st.just("sweep"), st.none()),
    st.tuples(st.just("again"), st.none()),
)


@pytest.mark.usefixtures("no_patience")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(acts=st.lists(ACTS, max_size=12))
def test_every_picture_stays_readable_after_any_sequence_of_operations(
    acts: list[tuple[str, int | set[int] | None]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = PictureStore(Path(name))
        there: set[int] = set()
        for act, what in acts:
            if isinstance(what, int):
                put(store, what)
                there.add(what)
            elif isinstance(what, set):
                if good := sorted(what & there):
                    assert shards.read(store.shard(rows(store, *good)))["bytes"].to_pylist() == [*map(body, good)]
            elif act == "sweep":
                store.sweep()
            else:
                store.close()
                store = PictureStore(Path(name))
        assert bodies(store, *sorted(there)) == [*map(body, sorted(there))]
        store.close()
