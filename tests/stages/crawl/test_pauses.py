"""A pause that the host requested outlives the run, however that ends; and a damaged note of it is none."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawls import DownloadProject, pictures
from faults import FaultyHost, faulty_host
from hypothesis import given
from hypothesis import strategies as st

from stages.crawl import pauses
from stages.crawl.pace import LONGEST
from stages.crawl.pauses import HostPause


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_restart_waits_for_the_end_of_the_pause_and_says_so_once(
    host: FaultyHost, tmp_path: Path, sent: signal.Signals
) -> None:
    project = DownloadProject(tmp_path, {9: host.url(f"429-hour/{sent}")})
    with project.start() as process:
        assert process.stderr
        while "requests a pause (it answered 429): the crawl resumes in 1:00:00" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(sent)
        process.communicate()
    requests_before = host.requested.total()
    for _ in range(2):  # each restart
        with project.start() as process:
            assert process.stderr
            line = process.stderr.readline()
            while "requested a pause" not in line:
                assert process.poll() is None
                line = process.stderr.readline()
            assert re.search(
                r"^127.0.0.1 requested a pause from an earlier run \(it answered 429\): the crawl begins in "
                r"(1:00:00|0:5\d:\d\d)$",
                line,
            )
            process.send_signal(sent)
            rest = process.communicate()[1]
            assert "requested a pause" not in rest
    assert host.requested.total() == requests_before


def test_after_the_pause_the_crawl_goes_on(host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    project = DownloadProject(tmp_path, pictures(host, 3))
    assert project.run()[0] == 0
    project.list(pictures(host, 4))
    until = time.time() + 4
    pauses.keep(HostPause(4.0, "127.0.0.1", "it answered 429"))
    code, output = project.run()
    assert code == 0
    assert time.time() >= until
    assert output.count("requested a pause") == 1
    project.clear()
    assert "requested a pause" not in project.run()[1]


def test_the_longest_pause_of_the_hosts_counts(cache_root: Path) -> None:
    pauses.keep(HostPause(100, "a.example", "it answered 501"))
    pauses.keep(HostPause(50, "a.example", "it answered 429"))
    pauses.keep(HostPause(70, "b.example", "it answered 503"))
    longest = pauses.longest(["b.example", "c.example", "a.example"])
    assert longest is not None
    assert (longest.host, longest.reason) == ("a.example", "it answered 501")
    assert 0 < longest.seconds <= 100
    assert pauses.longest(["c.example"]) is None


def test_a_clock_that_was_set_back_does_not_stop_the_crawl_for_years(cache_root: Path) -> None:
    text = json.dumps({"until": time.time() + 10**9, "reason": "it answered 429"})
    (cache_root / "crawl-a.example.pause").write_text(text)
    longest = pauses.longest(["a.example"])
    assert longest is not None
    assert longest.seconds == LONGEST


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["until", "reason"]), inner),
    max_leaves=4,
)


@given(
    st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b'{"until": 1' + b"0" * 500)
)
def test_whatever_the_note_holds_it_is_a_pause_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "notes"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("MLPY_CACHE")
    os.environ["MLPY_CACHE"] = str(folder)
    try:
        (folder / "crawl-a.example.pause").write_bytes(data)
        longest = pauses.longest(["a.example"])
        assert longest is None or 0 < longest.seconds <= LONGEST
        pauses.keep(HostPause(LONGEST + 9, "a.example", "it answered 429"))
        again = pauses.longest(["a.example"])
        assert again is not None
        assert again.reason == "it answered 429"
    finally:
        os.environ.pop("MLPY_CACHE") if before is None else os.environ.update(MLPY_CACHE=before)
