"""The picture store returns everything that was put into it, whatever happened in between."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.crawl import store as module
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.workspace.errors import CrawlError

ROOT = Path(__file__).parents[3]


def wanted(number: int, sha512: str = "") -> WantedPicture:
    return WantedPicture(number, f"https://example.org/{number}.png", sha512)


def body(number: int) -> bytes:
    return f"picture {number} ".encode() * (number + 1)


def ok(data: bytes) -> DownloadResult:
    return DownloadResult("ok", 200, None, 40, 30, "png", hashlib.sha256(data).hexdigest())


def put(store: PictureStore, *numbers: int) -> None:
    for number in numbers:
        store.put(wanted(number), ok(body(number)), body(number))


def stored(store: PictureStore, *numbers: int) -> list[bytes | None]:
    """The bytes of pictures, None for those that are not known."""
    pictures = [wanted(number) for number in numbers]
    results = zip(pictures, store.results(pictures), strict=True)
    return [result and store.read(picture, result) for picture, result in results]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a cache/pictures"


@pytest.fixture
def store(folder: Path) -> Iterator[PictureStore]:
    with PictureStore(folder, "caps") as store:
        yield store


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def test_a_picture_is_found_with_all_its_fields(store: PictureStore) -> None:
    put(store, 1)
    (result,) = store.results([wanted(1)])
    assert result is not None
    assert (result.status, result.http_status, result.detail) == ("ok", 200, None)
    assert (result.width, result.height, result.format) == (40, 30, "png")
    assert store.read(wanted(1), result) == body(1)


def test_results_come_in_the_order_of_the_pictures_and_none_for_unknown_ones(store: PictureStore) -> None:
    put(store, 1, 2, 3)
    assert stored(store, 3, 9, 1, 3) == [body(3), None, body(1), body(3)]
    assert list(store.results([])) == []


def test_an_original_that_was_replaced_is_another_picture(store: PictureStore) -> None:
    store.put(wanted(1, "old"), ok(b"old"), b"old")
    assert list(store.results([wanted(1, "new")])) == [None]
    store.put(wanted(1, "new"), ok(b"new"), b"new")
    results = [result for result in store.results([wanted(1, "old"), wanted(1, "new")]) if result]
    assert [store.read(wanted(1), result) for result in results] == [b"old", b"new"]


def test_a_later_result_replaces_an_earlier_one(store: PictureStore) -> None:
    store.put(wanted(1), DownloadResult("missing", 404))
    put(store, 1)
    assert stored(store, 1) == [body(1)]


def test_a_large_picture_is_kept_between_small_ones(store: PictureStore) -> None:
    bodies = [b"before", bytes(range(256)) * 20_000, b"after"]
    for number, data in enumerate(bodies):
        store.put(wanted(number), ok(data), data)
    assert stored(store, 0, 1, 2) == bodies


def test_a_failure_has_no_bytes(store: PictureStore) -> None:
    store.put(wanted(1), DownloadResult("missing", 404, "gone"), b"<html>gone")
    (result,) = store.results([wanted(1)])
    assert result == DownloadResult("missing", 404, "gone")
    with pytest.raises(ValueError, match="only an ok result has bytes"):
        store.read(wanted(1), result)


def test_failures_under_other_limits_are_requested_again_and_pictures_are_not(folder: Path) -> None:
    with PictureStore(folder, "1000/1000") as store:
        put(store, 1)
        store.put(wanted(2), DownloadResult("too_large", 200))
        assert [result and result.status for result in store.results([wanted(1), wanted(2)])] == ["ok", "too_large"]
    with PictureStore(folder, "2000/1000") as store:
        assert [result and result.status for result in store.results([wanted(1), wanted(2)])] == ["ok", None]


@pytest.mark.parametrize(("days", "known"), [(6, True), (8, False)])
def test_a_failure_is_requested_again_after_a_week(
    folder: Path, store: PictureStore, monkeypatch: pytest.MonkeyPatch, days: int, known: bool
) -> None:
    store.put(wanted(1), DownloadResult("missing", 404))
    put(store, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 24 * 3600)
    with PictureStore(folder, "caps") as later:
        missing, picture = later.results([wanted(1), wanted(2)])
    assert (missing is not None) is known
    assert picture is not None


def test_a_failure_in_a_crawl_stays_known_to_its_end(
    folder: Path, store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(wanted(1), DownloadResult("missing", 404))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    with store.reopen() as other, PictureStore(folder, "caps") as later:
        known = [next(opened.results([wanted(1)])) for opened in (store, other, later)]
    assert [result is not None for result in known] == [True, True, False]


def test_segments_are_of_limited_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", 1200)
    with PictureStore(folder) as store:
        put(store, *range(12))
        assert all(file.stat().st_size <= 1200 for file in segments(folder))
        assert len(segments(folder)) > 2
        assert stored(store, *range(12)) == [body(number) for number in range(12)]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damage_is_an_error_and_damaged_pictures_are_requested_again(folder: Path, damage: str) -> None:
    with PictureStore(folder) as store:
        put(store, 1, 2)
    with PictureStore(folder) as store:  # a segment of its own
        put(store, 3)
        (result,) = store.results([wanted(1)])
        assert result is not None
        assert result.file is not None
        segment = folder / result.file
        data = segment.read_bytes()
        if damage == "gone":
            segment.unlink()
        else:
            assert result.start
            changed = data[: result.start] + b"!" + data[result.start + 1 :]
            segment.write_bytes(changed if damage == "changed" else data[:5])
        with pytest.raises(CrawlError) as caught:
            store.read(wanted(1), result)
        assert str(caught.value) == f"{segment} has damaged pictures; run again to download them"
        assert stored(store, 1, 2, 3) == [None, body(2) if damage == "changed" else None, body(3)]
        put(store, 1)
        assert stored(store, 1) == [body(1)]


def test_an_index_that_is_damaged_while_it_is_open_is_an_error_and_made_anew_by_the_next_run(folder: Path) -> None:
    numbers = range(200)
    with PictureStore(folder) as store:
        put(store, *numbers)
    file = folder / "index.sqlite"
    data = file.read_bytes()
    file.write_bytes(data[:8192] + bytes([255]) * (len(data) - 8192))
    with (
        pytest.raises(CrawlError, match=r"the index in .* is damaged; run again, and it is made anew"),
        PictureStore(folder, check=False) as store,
    ):
        stored(store, *numbers)
    with PictureStore(folder) as store:
        assert stored(store, *numbers) == [body(number) for number in numbers]


def test_two_stores_on_one_folder_do_not_disturb_each_other(folder: Path) -> None:
    with PictureStore(folder) as one, PictureStore(folder) as two:
        for number in range(20):
            put(one if number % 2 else two, number)
        expected = [body(number) for number in range(20)]
        assert stored(one, *range(20)) == expected
        assert stored(two, *range(20)) == expected
    assert len(segments(folder)) == 2


PUTTING = """
import hashlib, sys
from pathlib import Path
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
store = PictureStore(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    data = f"picture {number} ".encode() * (number + 1)
    result = DownloadResult("ok", 200, None, 40, 30, "png", hashlib.sha256(data).hexdigest())
    store.put(WantedPicture(number, f"https://example.org/{number}.png", ""), result, data)
    print(number, flush=True)
sys.stdin.read()
"""


def putting(folder: Path, first: int, end: int) -> subprocess.Popen[str]:
    """A process that puts pictures, prints the number of each, and then waits without closing anything."""
    return subprocess.Popen(
        [sys.executable, "-c", PUTTING, folder, str(first), str(end)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_create_a_store_at_once_lose_nothing(folder: Path) -> None:
    processes = [putting(folder, start, start + 25) for start in (0, 25, 50, 75)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    with PictureStore(folder) as store:
        assert stored(store, *range(100)) == [body(number) for number in range(100)]


def test_many_threads_create_a_store_at_the_same_moment(folder: Path) -> None:
    together = threading.Barrier(8)

    def begin(number: int) -> None:
        together.wait()
        PictureStore(folder / str(number // 8)).close()

    with ThreadPoolExecutor(8) as pool:
        started = [pool.submit(begin, number) for number in range(20 * 8)]
    assert [future.exception() for future in started] == [None] * 20 * 8


def test_what_was_put_before_a_kill_is_found(folder: Path) -> None:
    with putting(folder, 0, 100_000) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 50:
            pass
        process.send_signal(signal.SIGKILL)
        printed = [int(line) for line in process.stdout.read().split()]
    last = max([50, *printed])
    with PictureStore(folder) as store:
        assert stored(store, *range(last + 1)) == [body(number) for number in range(last + 1)]
        put(store, 200_000)
        assert stored(store, 200_000) == [body(200_000)]
