"""The download stage as a command: its outs, its exit code, and the cost of a rerun or a `kill -9`."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crawls import (
    FAULTS,
    FORKS,
    SECTION,
    TEMPORARY,
    DownloadProject,
    faulty_pictures,
    kill_again_and_again,
    pictures,
)
from faults import FaultyHost, faulty_host


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


def test_pictures_are_in_shards_and_every_image_has_a_status(host: FaultyHost, tmp_path: Path) -> None:
    urls = {
        **pictures(host, 120),
        200: host.url("404"),
        201: host.url("html"),
        202: host.url("503"),
        203: host.url("pixel-bomb"),
    }
    project = DownloadProject(tmp_path, urls)
    code, output = project.run()
    assert code == 0, output
    status = project.status()
    assert list(status) == sorted(urls)
    assert {status[number] for number in range(120)} == {"ok"}
    assert [status[number] for number in range(200, 204)] == ["missing", "corrupt", "gave_up", "too_large"]
    shards = sorted((tmp_path / "data/download/shards").iterdir())
    assert [shard.name for shard in shards] == [f"shard-0000{n}.parquet" for n in range(3)]
    rows = pq.read_table(shards[1]).to_pylist()
    assert [row["image_id"] for row in rows] == list(range(50, 100))
    assert (rows[7]["width"], rows[7]["height"], rows[7]["format"]) == (97, 30, "png")
    assert all(hashlib.sha256(row["bytes"]).hexdigest() == row["sha256"] for row in rows)
    assert project.crawl()["pictures"] == {"corrupt": 1, "gave_up": 1, "missing": 1, "ok": 120, "too_large": 1}
    first, *_, last = output.splitlines()
    assert first == "downloading 124 pictures: at least 0:00:01 at 400 per second"
    assert last.startswith("124 pictures: 120 ok, 1 missing, 1 corrupt, 1 gave_up, 1 too_large; 127 requests in ")


def test_a_rerun_requests_nothing_writes_no_shard_and_gives_the_same_bytes(host: FaultyHost, tmp_path: Path) -> None:
    project = DownloadProject(tmp_path, {**pictures(host, 60), 70: host.url("404")})
    assert project.run()[0] == 0
    outs, shards, requests_before = project.outs(), project.shards(), host.requested.total()
    index = (tmp_path / "cache/pictures/index.sqlite").read_bytes()
    project.clear()
    assert project.run()[0] == 0
    assert project.outs() == outs
    assert project.shards() == shards
    assert (tmp_path / "cache/pictures/index.sqlite").read_bytes() == index
    assert host.requested.total() == requests_before
    assert project.crawl()["requests"] == 0


def test_more_images_cause_only_new_requests_and_shards(host: FaultyHost, tmp_path: Path) -> None:
    few, more = pictures(host, 80), pictures(host, 120)
    grown, whole = DownloadProject(tmp_path / "grown", few), DownloadProject(tmp_path / "whole", more)
    assert grown.run()[0] == 0
    before, requests_before = grown.shards(), host.requested.total()
    grown.list(more)
    grown.clear()
    assert grown.run()[0] == 0
    after = grown.shards()
    assert host.requested.total() - requests_before == 40
    assert [name for name in after if after[name] != before.get(name)] == ["shard-00001.parquet", "shard-00002.parquet"]
    assert whole.run()[0] == 0
    assert grown.outs() == whole.outs()


def test_a_cache_on_another_file_system_has_its_shards_copied(
    host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    project = DownloadProject(tmp_path, pictures(host, 60))
    try:
        (tmp_path / "cache").symlink_to(other)
        assert project.run()[0] == 0
        assert project.finished() == 2
        assert all(file.stat().st_nlink == 1 for file in (tmp_path / "data/download/shards").iterdir())
        assert len(pq.read_table(tmp_path / "data/download/shards")) == 60
    finally:
        shutil.rmtree(other)


def test_too_many_failures_fail_the_stage_in_one_sentence_and_keep_the_pictures(
    host: FaultyHost, tmp_path: Path
) -> None:
    project = DownloadProject(
        tmp_path, {**pictures(host, 4), **{number: host.url(f"404/{number}") for number in range(10, 14)}}
    )
    code, output = project.run()
    assert code == 1
    assert output.splitlines()[-1].startswith(
        "error: 4 of 8 pictures failed (4 missing), more than download.max_failed=0.3;"
    )
    assert "Traceback" not in output
    assert not (tmp_path / "data/download/shards").exists()
    requests_before = host.requested.total()
    assert project.run()[0] == 1
    assert host.requested.total() == requests_before


def test_the_error_says_how_many_are_requested_again_and_what_would_accept_them(
    host: FaultyHost, tmp_path: Path
) -> None:
    urls = {10: host.url("404/10"), 11: host.url("404/11"), 12: host.url("503/x")}
    project = DownloadProject(tmp_path, {**pictures(host, 3), **urls})
    code, output = project.run()
    assert code == 1
    error = output.splitlines()[-1]
    assert "3 of 6 pictures failed (2 missing, 1 gave_up), more than download.max_failed=0.3" in error
    assert "requests 1 of them again" in error
    assert "the other 2 are not requested for a week" in error
    requests_before = host.requested.total()
    assert project.run()[0] == 1
    assert host.requested.total() - requests_before == 3, "one picture, three tries"
    accepted = re.search(r"accept them with (download\.max_failed=([\d.]+))$", error)
    assert accepted
    project.change(max_failed=float(accepted[2]))
    assert project.run()[0] == 0


def test_repeated_429_answers_double_the_pause_of_the_whole_crawl(host: FaultyHost, tmp_path: Path) -> None:
    urls = {number: host.url(f"429/{number}") for number in range(2)}
    project = DownloadProject(tmp_path, urls, concurrency=1, tries=3, backoff=0.05, max_wait=0.5, max_failed=1.0)
    assert project.run()[0] == 0
    assert project.crawl()["paused"] == pytest.approx(0.05 + 0.1 + 0.2 + 0.4 + 0.5 + 0.5)


@pytest.mark.parametrize(
    ("outage", "reason"),
    [
        ("elsewhere", "host not allowed"),
        ("html", "a web page instead of a picture"),
        ("418", "the host refused the request"),
        ("503", "the host answered 503"),
        ("reset", "connection lost"),
        ("loop", "too many redirects"),
    ],
)
def test_an_outage_ends_the_crawl_with_its_cause_and_is_not_remembered(
    host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: str, reason: str
) -> None:
    project = DownloadProject(tmp_path, pictures(host, 200), rate=5000.0)
    monkeypatch.setattr(host, "outage", outage)
    code, output = project.run()
    assert code == 1
    error = output.splitlines()[-1]
    assert error.startswith("error: 127.0.0.1 serves no pictures: 50 requests in a row failed (")
    assert f"50 times {reason}" in error
    assert "Traceback" not in output
    monkeypatch.setattr(host, "outage", "")
    assert project.run()[0] == 0
    assert set(project.status().values()) == {"ok"}


def test_a_few_pictures_that_only_the_host_fails_are_requested_again(
    host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = DownloadProject(tmp_path, pictures(host, 5), max_failed=1.0)
    for outage, status in (("elsewhere", "refused"), ("html", "corrupt"), ("reset", "gave_up"), ("", "ok")):
        monkeypatch.setattr(host, "outage", outage)
        assert project.run()[0] == 0
        assert set(project.status().values()) == {status}


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_web_page_is_not_remembered_however_many_tries_there_are(
    host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    project = DownloadProject(tmp_path, pictures(host, 5), max_failed=1.0, tries=tries)
    monkeypatch.setattr(host, "outage", "html")
    assert project.run()[0] == 0
    monkeypatch.setattr(host, "outage", "")
    assert project.run()[0] == 0
    assert set(project.status().values()) == {"ok"}


@pytest.mark.parametrize(
    ("root", "hosts", "reason"),
    [
        ("", ["other.example.org"], "pictures at http://127.0.0.1 are not requested: host not allowed;"),
        ("http://example.org", ["example.org"], "pictures at http://example.org are not requested: not https;"),
        ("https://10.1.2.3", ["10.1.2.3"], "pictures at https://10.1.2.3 are not requested: private address;"),
        ("https://u:hunter2@a.example", ["b.example"], "pictures at https://a.example are not requested: host"),
        ("http://[::1", ["b.example"], "not a web address;"),
        ("ftp://a.example", ["a.example"], "pictures at ftp://a.example are not requested: not https;"),
    ],
)
@pytest.mark.parametrize("count", [3, 200])
def test_addresses_that_do_not_fit_are_refused_before_the_first_request(
    host: FaultyHost, tmp_path: Path, root: str, hosts: list[str], reason: str, count: int
) -> None:
    urls = {number: f"{root}/{number}.png" if root else host.url(f"picture/{number}") for number in range(count)}
    project = DownloadProject(tmp_path, urls, hosts=hosts, max_failed=1.0)
    requests_before = host.requested.total()
    code, output = project.run()
    assert code == 1
    assert reason in output
    (error,) = output.splitlines()
    assert error.endswith(f"check extract.root and download.hosts, which is {hosts[0]}")
    assert "hunter2" not in output
    assert host.requested.total() == requests_before
    project.list(pictures(host, 5))
    project.change()
    assert project.run()[0] == 0, "and nothing is remembered"


def test_a_crawl_of_a_board_without_a_contact_warns_once(host: FaultyHost, tmp_path: Path) -> None:
    urls = {1: "https://pictures.invalid/1.png"}
    project = DownloadProject(tmp_path, urls, hosts=["pictures.invalid"], tries=1, max_failed=1.0)
    output = project.run()[1]
    assert output.count("download.contact is not set: the staff of pictures.invalid cannot reach you") == 1
    project.change(hosts=["pictures.invalid"], tries=1, max_failed=1.0, contact="me@example.org")
    assert "download.contact" not in project.run()[1]
    project.list(pictures(host, 1))
    project.change()
    assert "download.contact" not in project.run()[1], "on loopback it is the user's own host"


def test_a_refusal_is_one_sentence(host: FaultyHost, tmp_path: Path) -> None:
    code, output = DownloadProject(tmp_path, {1: host.url("403")}).run()
    assert code == 1
    assert "error: 127.0.0.1 blocked the crawl (403)" in output
    assert "Traceback" not in output


def test_no_catalogue_says_what_to_run(tmp_path: Path) -> None:
    project = DownloadProject(tmp_path, {})
    (tmp_path / "data/extract/images.parquet").unlink()
    code, output = project.run()
    assert (code, output.strip()) == (1, "error: data/extract/images.parquet is missing; run `dvc repro extract`")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_at_any_moment_ends_cleanly_and_keeps_finished_pictures(
    host: FaultyHost, tmp_path: Path, sent: int, code: int
) -> None:
    urls = {number: host.url(f"picture/{number}/{sent}") for number in range(400)}
    project = DownloadProject(tmp_path, urls, rate=100.0)
    chance = random.Random(sent)
    with project.start("-c", FORKS) as forks:
        assert forks.stdin
        assert forks.stdout
        for _ in range(10):
            requests_before = host.requested.total()
            print(file=forks.stdin, flush=True)
            child = int(forks.stdout.readline())
            while host.requested.total() < requests_before + 5:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child, sent)
            assert os.waitstatus_to_exitcode(int(forks.stdout.readline())) == code
            assert project.outs() == {}
        output = forks.communicate()[1]
    assert "Traceback" not in output
    # Of these pictures alone: the host is that of other tests, too, some of which ask for picture/2.
    asked_for = [host.requested[f"picture/{number}/{sent}"] for number in range(400)]
    asked_for = [times for times in asked_for if times]
    assert sum(asked_for) - len(asked_for) <= 10 * SECTION["concurrency"]  # only requests that were in flight


def test_after_any_kills_the_outputs_are_those_of_an_undisturbed_run(host: FaultyHost, tmp_path: Path) -> None:
    urls = faulty_pictures(host, 300)
    undisturbed, killed = DownloadProject(tmp_path / "a", urls), DownloadProject(tmp_path / "b", urls)
    assert undisturbed.run()[0] == 0
    assert list(undisturbed.status().values()).count("ok") == 300
    for path in [path for path in host.requested if "~" in path]:
        del host.requested[path]  # so that the second crawl meets the same faults
    report = kill_again_and_again(killed, host, kills=6, seed=20)
    assert killed.outs() == undisturbed.outs()
    assert len(report.finished) > 1  # some while shards were being written
    extra = len(FAULTS) * 8 + len(TEMPORARY)  # requests that are answered by faults
    assert report.requests <= report.lives * (len(urls) + extra) + report.kills.total() * SECTION["concurrency"]


def test_shards_are_finished_while_the_crawl_goes_on(host: FaultyHost, tmp_path: Path) -> None:
    project = DownloadProject(tmp_path, {**pictures(host, 100), 100: host.url("slow/100")})
    with project.start() as process:
        while not project.finished():  # although the last picture never arrives
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert project.outs() == {}
