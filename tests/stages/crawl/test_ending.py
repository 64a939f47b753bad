"""SIGTERM and Ctrl-C end the crawl in every state, soon, without a traceback, and with nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawls import DownloadProject, pictures
from faults import FaultyHost, faulty_host

RUN = "import runpy; runpy.run_module('stages.download', run_name='__main__')"
# Threads that nothing can interrupt, as the system's resolver and a disk that hangs.
RESOLVING = (
    "import socket, sys, time\nsocket.getaddrinfo = lambda *_, **__: (print('there', flush=True), time.sleep(900))\n"
)
SYNCING = "import os, time\nos.fsync = lambda _: (print('there', flush=True), time.sleep(900))\n"
WRITING = (
    "import time\nfrom stages.workspace import shards\n"
    "shards.write = lambda *_: (print('there', flush=True), time.sleep(900))\n"
)


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


def ended(process: subprocess.Popen[str], sent: int) -> tuple[int, str, float]:
    """Send a signal; returns the exit code, what the process said then, and the seconds until it ended."""
    start = time.monotonic()
    process.send_signal(sent)
    output = process.communicate()[1]
    return process.returncode, output, time.monotonic() - start


def until_requested(host: FaultyHost, path: str, process: subprocess.Popen[str]) -> None:
    while not host.requested[path]:
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("state", ["pause", "slow", "resolving", "shard in a thread", "shards at the end"])
def test_a_signal_ends_the_crawl_in_every_state(
    host: FaultyHost, tmp_path: Path, state: str, sent: int, code: int
) -> None:
    path = f"{'429-hour' if state == 'pause' else 'slow'}/{state.replace(' ', '-')}/{sent}"
    urls, words = {0: host.url(path)}, ()
    if state == "resolving":
        urls, words = {0: "https://pictures.example/0"}, ("-c", RESOLVING + RUN)
    elif state == "shard in a thread":  # while the crawl waits for a slow host
        urls, words = {**pictures(host, 50), 50: host.url(path)}, ("-c", SYNCING + RUN)
    elif state == "shards at the end":
        urls, words = pictures(host, 3), ("-c", WRITING + RUN)
    project = DownloadProject(tmp_path, urls, hosts=["127.0.0.1", "pictures.example"], contact="me@example.org")
    with project.start(*words) as process:
        if words:
            assert process.stdout
            assert process.stdout.readline() == "there\n"
        else:
            until_requested(host, path, process)
        returned, output, seconds = ended(process, sent)
    assert returned == code
    assert "Traceback" not in output
    assert seconds < 60, "the state itself lasts 15 minutes or more"
    print(f"{state}: {seconds:.1f} s")  # noqa: T201 (pytest -s shows them)
    assert project.outs() == {}


FORKING = """
import os, signal, time
from stages.crawl import ending
ending.GRACE = 0.1
with ending.ended_by_signals():
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, b"!")  # Python drops signals that come while it forks
        time.sleep(900)
    os.read(reader, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    time.sleep(0.5)
print("alive")
"""


def test_a_signal_to_a_forked_process_does_not_end_this_one(tmp_path: Path) -> None:
    project = DownloadProject(tmp_path, {})
    with project.start("-c", FORKING) as process:
        assert process.communicate() == ("alive\n", "")


def test_a_signal_ends_the_wait_for_another_crawl(host: FaultyHost, tmp_path: Path) -> None:
    project = DownloadProject(tmp_path, {0: host.url("slow/other")})
    with project.start() as first:
        until_requested(host, "slow/other", first)
        with project.start() as second:
            assert second.stderr
            while "another run is crawling" not in second.stderr.readline():
                assert second.poll() is None
            returned, output, _ = ended(second, signal.SIGTERM)
        assert (returned, output) == (143, "")
        first.kill()
