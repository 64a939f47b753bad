"""Decoding in processes with limits: what exceeds them costs its own process, and nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from containers import bomb, drawing, encoded, scans
from waiting import until

from stages.inference.decoding import Caps, check
from stages.inference.frames import frames
from stages.inference.processes import Limits, Processes
from stages.workspace.errors import PictureError

MB = 1_000_000
PICTURE = encoded([drawing()], "PNG")


# What the processes run, beside decoders


def spin(data: bytes) -> None:
    while True:
        pass


def take(data: bytes, size: int) -> int:
    return len(b"x" * size)


def crash(data: bytes) -> None:
    ctypes.string_at(0)


def pid(data: bytes) -> int:
    return os.getpid()


def end(data: bytes, number: int) -> None:
    os.kill(os.getpid(), number)


def once(data: bytes, marker: Path) -> str:
    """Killed from outside the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes(Limits(seconds=0.5, memory=150 * MB), 2)
    yield made
    made.close()


async def reason(processes: Processes, *call: object) -> str:
    with pytest.raises(PictureError) as caught:
        await processes.run(*call)  # type: ignore[arg-type]
    return caught.value.reason


async def test_the_result_is_the_functions(processes: Processes) -> None:
    there, here = await processes.run(frames, PICTURE, 32, count=3), frames(PICTURE, 32, count=3)
    assert (there.frames == here.frames).all()
    assert (there.width, there.height, there.missed) == (here.width, here.height, here.missed)


async def test_an_error_of_the_function_is_raised_here(processes: Processes) -> None:
    assert await reason(processes, frames, b"<html>", 32) == "corrupt"
    assert await reason(processes, frames, bomb(30_000, 30_000), 32) == "too_large"
    assert await reason(processes, check, PICTURE, Caps(max_bytes=10)) == "too_large"


async def test_a_process_is_kept_for_the_next_picture(processes: Processes) -> None:
    seen = {await processes.run(pid, b"") for _ in range(20)}
    assert len(seen) <= 2
    assert os.getpid() not in seen


async def test_what_exceeds_a_limit_costs_its_own_process_alone(processes: Processes) -> None:
    """The other process answers all the while, and both kinds of limit leave two processes that work."""
    hostile = [
        *(asyncio.create_task(reason(processes, spin, b"")) for _ in range(3)),
        *(asyncio.create_task(reason(processes, take, b"", 400 * MB)) for _ in range(3)),
        *(asyncio.create_task(reason(processes, crash, b"")) for _ in range(3)),
    ]
    for _ in range(20):
        assert (await processes.run(frames, PICTURE, 32)).missed == 0
    assert await asyncio.gather(*hostile) == ["timed_out"] * 3 + ["too_large"] * 3 + ["corrupt"] * 3
    assert await processes.run(take, b"", 50 * MB) == 50 * MB


async def test_an_input_over_the_limit_of_memory_is_too_large(processes: Processes) -> None:
    assert await reason(processes, pid, bytes(300 * MB)) == "too_large"
    assert await processes.run(pid, bytes(20 * MB))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_picture_whose_process_is_killed_from_outside_is_decoded_again(
    processes: Processes, number: int, tmp_path: Path
) -> None:
    assert await processes.run(once, b"", tmp_path / "marker") == "done"
    assert await reason(processes, end, b"", number) == "too_large"
    idle = await processes.run(pid, b"")
    os.kill(idle, number)
    assert (await processes.run(frames, PICTURE, 32)).missed == 0


async def test_memory_that_a_picture_needed_is_given_back(processes: Processes) -> None:
    first = {await processes.run(pid, b"") for _ in range(10)}
    await asyncio.gather(*(processes.run(take, b"", 100 * MB) for _ in range(4)))
    assert not first & {await processes.run(pid, b"") for _ in range(10)}


async def test_a_real_bomb_is_cut_off_by_its_time(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 scans of 25 megapixels; without the check of their number, which a process does not inherit."""
    assert await reason(processes, unguarded, scans(5000, 3000)) == "timed_out"


def unguarded(data: bytes) -> None:
    from stages.inference import containers

    containers.MAX_SCANS = 10**6
    frames(data, 32)


def busy(process: psutil.Process) -> bool:
    return "multiprocessing.forkserver" in " ".join(process.cmdline()) and process.cpu_times().user > 0.2


async def test_closing_ends_what_is_under_way() -> None:
    children = psutil.Process().children
    others = set(children(recursive=True))  # other tests' helpers
    processes = Processes(Limits(seconds=1000, memory=150 * MB), 2)
    running = [asyncio.create_task(reason(processes, spin, b"")) for _ in range(2)]
    await until(lambda: sum(busy(child) for child in set(children(recursive=True)) - others) == 2)
    processes.close()
    async with asyncio.timeout(600):
        assert await asyncio.gather(*running) == ["timed_out"] * 2


ORPHAN = """
import asyncio, sys
from stages.inference.processes import Limits, Processes
from tests.stages.inference.test_processes import pid, spin
async def main():
    processes = Processes(Limits(seconds=1000, memory=10**9), 2)
    print(await processes.run(pid, b""), await processes.run(pid, b""), flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def test_no_process_outlives_a_parent_that_is_killed() -> None:
    root = Path(__file__).parents[3]
    paths = [root, root / "tests", root / "tests/bot"]
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdout=subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline()
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 3
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 600
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
