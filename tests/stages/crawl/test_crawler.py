"""The crawl against a host with every kind of failure: each picture's result, and what the host has to endure."""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import GOOD, FaultyHost, faulty_host

from stages.config.download import Download
from stages.crawl.crawler import Crawler, crawl
from stages.crawl.identity import user_agent
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.workspace.errors import CrawlError

PARAMS = Download(
    host="stages/crawl/remote.py",
    hosts=["127.0.0.1"],
    rate=2000.0,
    concurrency=4,
    tries=3,
    timeout=600.0,
    backoff=0.01,
    max_wait=1.0,
    pause_overloaded=0.3,
    pause_blocked=0.4,
    max_bytes=1_000_000,
    max_pixels=1_000_000,
    max_failed=0.5,
    shard_size=10,
)
HASTY = dataclasses.replace(PARAMS, timeout=0.5)


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PictureStore]:
    with PictureStore(tmp_path / "pictures", "caps") as store:
        yield store


def fetch(store: PictureStore, *urls: str, params: Download = PARAMS) -> tuple[list[DownloadResult], Crawler]:
    wanted = [WantedPicture(place, url, "") for place, url in enumerate(urls)]
    crawler = crawl(params, store, wanted, len(wanted), {"pictures.localhost": ("127.0.0.1", 1)})
    known = zip(wanted, store.results(wanted), strict=True)
    return [result or crawler.gave_up[picture.url, picture.sha512] for picture, result in known], crawler


@pytest.mark.parametrize(
    ("path", "status", "http_status", "requests"),
    [
        ("good", "ok", 200, 1),
        ("wrong-type", "ok", 200, 1),
        ("moved", "ok", 200, 2),
        ("404", "missing", 404, 1),
        ("410", "missing", 410, 1),
        ("418", "refused", 418, 1),
        ("429", "gave_up", 429, 3),
        ("429-after", "gave_up", 429, 3),
        ("500-empty", "gave_up", 500, 3),
        ("500-body", "gave_up", 500, 3),
        ("501", "gave_up", 501, 3),
        ("503", "gave_up", 503, 3),
        ("503-after", "gave_up", 503, 3),
        ("cut-off", "gave_up", None, 3),
        ("too-long", "gave_up", None, 3),
        ("reset", "gave_up", None, 3),
        ("slow", "gave_up", None, 3),
        ("drip", "gave_up", None, 3),
        ("cut-off-chunk", "gave_up", None, 3),
        ("garbage", "gave_up", None, 3),
        ("header-bomb", "gave_up", None, 3),
        ("zero", "gave_up", 200, 3),
        ("html", "corrupt", 200, 2),
        ("truncated", "corrupt", 200, 2),
        ("gzip-bomb", "corrupt", 200, 2),
        ("pixel-bomb", "too_large", 200, 1),
        ("large-said", "too_large", 200, 1),
        ("large-unsaid", "too_large", 200, 1),
        ("loop", "refused", None, 6),
        ("nowhere", "gave_up", 302, 3),
        ("no-address", "refused", None, 1),
        ("elsewhere", "refused", None, 1),
        ("inward", "refused", None, 1),
    ],
)
def test_the_result_of_each_kind_of_response(
    host: FaultyHost, store: PictureStore, path: str, status: str, http_status: int | None, requests: int
) -> None:
    (result,), crawler = fetch(store, host.url(path), params=HASTY if path in ("slow", "drip") else PARAMS)
    assert (result.status, result.http_status) == (status, http_status)
    assert crawler.tally.requests == requests
    if status == "ok":
        assert (result.width, result.height, result.format) == (40, 30, "png")
        assert store.read(WantedPicture(0, host.url(path), ""), result) == GOOD


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "429",
            "429-after",
            "500-empty",
            "500-body",
            "501",
            "503",
            "503-after",
            "cut-off",
            "cut-off-chunk",
            "too-long",
        ),
        *("reset", "garbage", "slow", "zero", "html"),
    ],
)
def test_a_temporary_fault_costs_only_time(host: FaultyHost, store: PictureStore, fault: str) -> None:
    params = dataclasses.replace(PARAMS, timeout=3.0) if fault == "slow" else PARAMS
    (result,), crawler = fetch(store, host.url(f"{fault}~1/{fault}-{time.monotonic_ns()}"), params=params)
    assert result.status == "ok"
    assert crawler.tally.retries == 1


def test_an_unknown_host_name_and_a_closed_port_are_given_up(store: PictureStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    params = dataclasses.replace(PARAMS, hosts=["127.0.0.1", "pictures.localhost", "pictures.invalid"])
    urls = (f"http://127.0.0.1:{port}/a", "http://pictures.localhost/a", "https://pictures.invalid/a")
    results, _ = fetch(store, *urls, params=params)
    assert [result.status for result in results] == ["gave_up"] * 3
    assert [result.detail for result in results] == [*["connection failed"] * 2, "host name not found"]


def test_only_allowed_hosts_are_requested_and_only_by_https(host: FaultyHost, store: PictureStore) -> None:
    params = dataclasses.replace(PARAMS, hosts=["example.org", "10.1.2.3", "169.254.169.254"])
    urls = (
        host.url("good"),
        "http://example.org/a",
        "https://10.1.2.3/a",
        "https://169.254.169.254/a",
        "file:///etc/passwd",
    )
    results, crawler = fetch(store, *urls, params=params)
    assert {result.status for result in results} == {"refused"}
    assert [result.detail for result in results] == [
        *("host not allowed", "not https", "private address", "private address"),
        "host not allowed",
    ]
    assert crawler.tally.requests == 0


def test_a_403_stops_the_crawl_and_keeps_finished_pictures(host: FaultyHost, store: PictureStore) -> None:
    params = dataclasses.replace(PARAMS, concurrency=1)
    urls = [host.url(f"good/{place}") for place in range(5)] + [host.url("403"), host.url("good/after")]
    with pytest.raises(CrawlError, match="blocked the crawl"):
        fetch(store, *urls, params=params)
    known = store.results([WantedPicture(place, url, "") for place, url in enumerate(urls)])
    assert [result and result.status for result in known] == ["ok"] * 5 + [None] * 2


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [("501", 0.3), ("500-empty", 0.4), ("429-after", 1.0), ("503-after", 1.0)],
    ids=["overloaded", "blocked", "throttled", "unavailable"],
)
def test_the_boards_signals_pause_the_whole_crawl(
    host: FaultyHost, store: PictureStore, fault: str, seconds: float
) -> None:
    mark = str(time.monotonic_ns())
    params = dataclasses.replace(PARAMS, concurrency=1)
    start = time.monotonic()
    results, crawler = fetch(
        store, host.url(f"{fault}~1/{mark}"), *(host.url(f"good/{n}") for n in range(3)), params=params
    )
    assert [result.status for result in results] == ["ok"] * 4
    assert time.monotonic() - start >= seconds
    assert crawler.tally.paused >= seconds - 0.01


def test_a_known_result_is_not_requested_again(host: FaultyHost, store: PictureStore) -> None:
    mark = f"404/{time.monotonic_ns()}"
    fetch(store, host.url(mark))
    wanted = [WantedPicture(0, host.url(mark), "")]
    assert [result.status for result in store.results(wanted) if result] == ["missing"]
    assert host.requested[mark] == 1


def test_the_client_identifies_itself_and_accepts_no_compression(host: FaultyHost, store: PictureStore) -> None:
    fetch(store, host.url("good/agent"), params=dataclasses.replace(PARAMS, contact="staff@example.org"))
    (request,) = (text for text in host.requests if "/good/agent" in text)
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    about = f"+{project['urls']['Repository']}; dataset crawler; contact: staff@example.org"
    assert f"User-Agent: MLpy/{project['version']} ({about})\r\n" in request
    assert "Accept-Encoding: identity" in request
    assert user_agent(None).endswith("; dataset crawler)")


def test_a_query_string_is_in_no_log_and_no_error(
    host: FaultyHost, store: PictureStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "stages")
    params = dataclasses.replace(PARAMS, tries=1)
    results, _ = fetch(
        store, *(host.url(f"{path}?key=hunter2") for path in ("404", "503", "reset", "html")), params=params
    )
    assert "hunter2" not in caplog.text
    assert not any("hunter2" in (result.detail or "") for result in results)
    with pytest.raises(CrawlError) as caught:
        fetch(store, host.url("403?key=hunter2"), params=params)
    assert "hunter2" not in str(caught.value)


def test_the_rate_is_kept(host: FaultyHost, store: PictureStore) -> None:
    start = time.monotonic()
    fetch(store, *(host.url(f"good/rate{n}") for n in range(21)), params=dataclasses.replace(PARAMS, rate=50.0))
    assert time.monotonic() - start >= 20 / 50 - 0.01
