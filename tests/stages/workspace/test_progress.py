"""A bar on a terminal; elsewhere a log line at intervals, whatever is going on meanwhile."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
from collections.abc import Iterator

import pytest

from stages.workspace import progress
from stages.workspace.progress import Progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[str]:
    """The log, once it has so many lines."""
    while len(caplog.messages) < count:
        time.sleep(0.005)
    return caplog.messages


def test_lines_come_at_intervals_although_nothing_is_done_and_end_with_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with Progress("download", 4000):
        assert set(lines(caplog, 3)) == {"download: 0 of 4,000 pictures"}
    count = len(caplog.messages)
    time.sleep(0.1)
    assert len(caplog.messages) <= count + 1


def test_a_line_tells_what_is_done_what_failed_the_rate_and_the_time_left(clock: list[float]) -> None:
    bar = Progress("download", 4000, delay=lambda: 900.0)
    for number in range(300):
        bar.update(failure={5: "missing", 6: "corrupt", 7: "missing"}.get(number))
    clock[0] += 100
    # 3,700 pictures at 3 per second are 1,233 s, and the pause is 900 s.
    assert str(bar) == ("download: 300 of 4,000 pictures, 3 failed (2 missing, 1 corrupt), 3 per second, 0:35:33 left")


def test_a_pause_before_the_first_picture_is_told(clock: list[float]) -> None:
    assert str(Progress("download", 9, delay=lambda: 61.2)) == "download: 0 of 9 pictures, paused for 0:01:01 more"


def test_what_was_done_before_says_nothing_about_the_rate(clock: list[float]) -> None:
    bar = Progress("features", 1000)
    bar.skip(800)
    clock[0] += 10
    assert str(bar) == "features: 800 of 1,000 pictures"
    bar.update(100)
    assert str(bar) == "features: 900 of 1,000 pictures, 10 per second, 0:00:10 left"


def test_other_units_and_an_unknown_total(clock: list[float]) -> None:
    restore, extract = Progress("restore", 5_000_000_000, "B"), Progress("extract", unit="image")
    restore.update(1_250_000_000)
    extract.update(65_536)
    clock[0] += 10
    assert str(restore) == "restore: 1,250 of 5,000 MB, 125 MB per second, 0:00:30 left"
    assert str(extract) == "extract: 65,536 images, 6,554 per second"


def test_a_terminal_has_a_bar_and_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with contextlib.redirect_stderr(Terminal()) as terminal, Progress("download", 3) as bar:
        for failure in (None, "missing", None):
            bar.update(failure=failure)
            time.sleep(0.12)  # tqdm draws ten times a second
    assert re.search(r"download: 100%.*3/3 .*failed=1", terminal.getvalue())
    assert caplog.messages == []


def test_track_yields_the_items(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = []
    for number in track(range(3), "keys", 3, "key"):
        seen.append(number)
        lines(caplog, len(caplog.messages) + 2)
    assert seen == [0, 1, 2]
    assert any(message.startswith("keys: 2 of 3 keys, ") for message in caplog.messages)
