"""SIGTERM and Ctrl-C end the crawl within seconds, whatever its threads are waiting for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

GRACE = 3.0
"""Seconds in which the process may end in order; then it ends as by `kill -9`, which loses nothing."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In this block, SIGTERM and Ctrl-C end the process after `GRACE` seconds at the latest.

    Threads that resolve a host name, decode a picture or write a shard cannot be interrupted, and Python waits for
    them when it exits.
    """
    with _handled(_end):
        yield


async def cancelled_by_signals(work: Coroutine[Any, Any, None]) -> None:
    """Await some work; SIGTERM and Ctrl-C cancel it: an exception from a handler would print tracebacks of tasks."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    received: list[int] = []

    def cancel(number: int, _: FrameType | None) -> None:
        received.append(number)
        _set_deadline(number)
        loop.call_soon_threadsafe(task.cancel)

    with _handled(cancel):
        try:
            await task
        except asyncio.CancelledError:
            if not received:
                raise
    if received:
        _leave(received[0])


def _end(number: int, _: FrameType | None) -> None:
    _set_deadline(number)
    _leave(number)


def _leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _set_deadline(number: int) -> None:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, GRACE)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
