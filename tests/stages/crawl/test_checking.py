"""The check of downloaded pictures: one that takes for ever is cut off, counted, and delays no end of the crawl."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from containers import drawing, encoded, scans
from crawls import DownloadProject
from faults import FaultyHost, faulty_host

from stages.config.download import Download
from stages.crawl.checking import check_picture, decoding_limits
from stages.inference.decoding import Caps
from stages.inference.processes import Limits, Processes

PARAMS = {"host": "stages/crawl/remote.py"}

ENDLESS = """
import runpy, sys
from stages.crawl import checking
from stages.inference import processes
import endless
checking.check, processes.SECONDS = endless.endless, {seconds}
runpy.run_module("stages.download", run_name="__main__")
"""
"""The stage, where a picture of 41 px takes for ever to decode."""


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture
def project(host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DownloadProject:
    folder = Path(__file__).parent
    paths = (folder.parents[2], folder, folder.parent, folder.parents[1], folder.parents[1] / "bot")
    made = DownloadProject(tmp_path, {number: host.url(f"picture/{number}") for number in range(8)})
    made.environment = lambda: {**DownloadProject.environment(made), "PYTHONPATH": ":".join(map(str, paths))}  # type: ignore[method-assign]
    return made


def test_a_picture_that_takes_for_ever_is_cut_off_and_counted(project: DownloadProject) -> None:
    with project.start("-c", ENDLESS.format(seconds=0.5)) as run:
        output = run.communicate()[1]
    assert run.returncode == 0, output
    assert project.status() == {number: "timed_out" if number == 1 else "ok" for number in range(8)}
    assert project.crawl()["pictures"] == {"ok": 7, "timed_out": 1}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_does_not_wait_for_a_picture(project: DownloadProject, sent: int, code: int) -> None:
    with project.start("-c", ENDLESS.format(seconds=100_000)) as run:
        process = psutil.Process(run.pid)
        while not any(child.cpu_times().user > 1 for child in process.children(recursive=True)):
            assert run.poll() is None
            time.sleep(0.05)
        children = process.children(recursive=True)
        run.send_signal(sent)
        output = run.communicate(timeout=600)[1]  # the picture would take a day
        assert run.returncode == code
        assert "Traceback" not in output
    psutil.wait_procs(children, timeout=600)
    assert not any(child.is_running() for child in children)


async def test_a_scan_bomb_is_timed_out() -> None:
    processes = Processes(Limits(5, 500_000_000))
    try:
        result = await check_picture(processes, scans(2000, 3000), Caps())
    finally:
        processes.close()
    assert (result.status, result.http_status) == ("timed_out", 200)
    assert result.detail == "3006 scans, over the cap of 100"


async def test_every_picture_within_the_caps_fits_the_memory() -> None:
    params = Download(
        **PARAMS, hosts=["h"], rate=1.0, concurrency=1, tries=1, timeout=1.0, backoff=1.0, max_wait=1.0,
        pause_overloaded=1.0, pause_blocked=1.0, max_bytes=10**6, max_pixels=4_000_000, max_failed=0.0, shard_size=1,
    )  # fmt: skip
    processes = Processes(decoding_limits(params), 2)
    image = drawing(1, 2000, 2000)
    try:
        kinds = {
            "PNG": encoded([image.convert("RGBA")], "PNG"),
            "WEBP": encoded([image] * 2, "WEBP", lossless=False),
            "GIF": encoded([image, drawing(2, 2000, 2000)], "GIF"),
            "JPEG": encoded([image], "JPEG", progressive=True, subsampling=0),
            "AVIF": encoded([image], "AVIF"),
        }
        results = await asyncio.gather(
            *(check_picture(processes, data, Caps(10**6, 4_000_000)) for data in kinds.values())
        )
    finally:
        processes.close()
    assert {kind: result.status for kind, result in zip(kinds, results, strict=True)} == dict.fromkeys(kinds, "ok")
