"""SIGTERM and Ctrl-C end the crawl within seconds, whatever its threads are waiting for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

GRACE = 3.0
"""Seconds in which the process may end in order; then it ends as by `kill -9`, which loses nothing."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In this block, SIGTERM and Ctrl-C do what they did, and end the process after `GRACE` seconds at the latest.

    Threads that resolve a host name or write a shard cannot be interrupted, and Python waits for them when it exits.
    """
    former = {int(number): signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _: FrameType | None) -> None:
        start(number)
        signal.signal(number, former[number])
        signal.raise_signal(number)

    with _deadline() as start, _handled(handle):
        yield


def run(work: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, but a signal cancels the work first, and then does what it does outside.

    An exception from a signal handler would reach any of the loop's tasks, which would print it.
    """
    with _deadline() as start:
        number = asyncio.run(_cancelled_by_signals(work, start))
    if number:
        signal.raise_signal(number)


async def _cancelled_by_signals(work: Coroutine[Any, Any, None], start: Callable[[int], object]) -> int:
    """Await the work; returns the signal that cancelled it, or 0."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    received: list[int] = []

    def cancel(number: int, _: FrameType | None) -> None:
        start(number)
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)

    with _handled(cancel):
        try:
            await task
        except asyncio.CancelledError:
            if not received:
                raise
    return received[0] if received else 0


@contextlib.contextmanager
def _deadline() -> Iterator[Callable[[int], object]]:
    """Yield a function that ends the process after `GRACE` seconds; it takes the signal's number."""
    reader, writer = os.pipe()  # a signal handler may interrupt any code, so it must not take a lock
    owner = os.getpid()

    def start(number: int) -> None:
        if os.getpid() == owner:  # a forked process has the handler and the pipe, too
            os.write(writer, bytes([number]))

    def wait() -> None:
        if number := os.read(reader, 1):
            time.sleep(GRACE)
            os._exit(128 + number[0])
        os.close(reader)

    threading.Thread(target=wait, name="deadline", daemon=True).start()
    try:
        yield start
    finally:
        os.close(writer)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
