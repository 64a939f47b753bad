"""The pace of a polite crawl: one crawl per host, evenly spaced requests, pauses, exponential backoff with jitter."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import random
import time
from collections.abc import Iterator, Mapping
from datetime import MAXYEAR, UTC, datetime
from email.utils import parsedate_to_datetime, parsedate_tz

from stages.workspace.cache import cache_root

log = logging.getLogger(__name__)


LONGEST = 86_400.0
"""Seconds that a host may request; more is taken for a mistake of its own, which must not stop a crawl for years."""


@contextlib.contextmanager
def one_crawl(hosts: list[str]) -> Iterator[None]:
    """Let one process at a time crawl these hosts: two would exceed the rate limit together."""
    with contextlib.ExitStack() as stack:
        for host in sorted(hosts):  # always in the same order, so that two crawls cannot deadlock
            lock = stack.enter_context((cache_root() / f"crawl-{host}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another run is crawling %s; waiting for it to finish", host)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def backoff(attempt: int, base: float, cap: float, random_source: random.Random) -> float:
    """Seconds to wait before the next attempt: uniform from 0 to `base` * 2 ** `attempt`, or to `cap` if that is less.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): clients that failed together do not return
    together.
    """
    return random_source.uniform(0, min(cap, base * 2.0 ** min(attempt, 60)))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds requested by a `Retry-After` header, a number or an HTTP date, at most `LONGEST`.

    Returns:
        None without a valid header. A date too far away for a calendar is the longest pause, not an error.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return min(float(value[:9]), LONGEST)
    parts = parsedate_tz(value)
    if parts is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return LONGEST if parts[0] > MAXYEAR else None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()), LONGEST)


class Pace:
    """Rate limiter: one request every 1/`rate` seconds, and none while the crawl is paused."""

    def __init__(self, rate: float) -> None:
        self._spacing = 1 / rate
        self._next = 0.0
        self._resumes = 0.0
        self.paused = 0.0
        """Total length of all pauses in seconds."""

    @property
    def pause_left(self) -> float:
        """Seconds until a pause ends; 0 outside of one. Any thread may ask."""
        return max(0.0, self._resumes - time.monotonic())

    @property
    def is_paused(self) -> bool:
        return self.pause_left > 0

    async def turn(self) -> None:
        """Wait until the next request may be sent."""
        now = asyncio.get_running_loop().time
        while True:
            moment = max(self._next, self._resumes, now())
            self._next = moment + self._spacing
            await asyncio.sleep(moment - now())
            if now() >= self._resumes:  # otherwise a pause began during the sleep
                return

    def pause(self, seconds: float) -> None:
        """Send no request for `seconds` from now; a pause that already lasts longer is not shortened."""
        now = asyncio.get_running_loop().time()
        resumes = now + seconds
        self.paused += max(0.0, resumes - max(self._resumes, now))  # count the overlap of two pauses once
        self._resumes = max(self._resumes, resumes)
        self._next = max(self._next, self._resumes)
