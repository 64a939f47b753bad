"""A polite crawler's sense of time: even spacing, pauses of the whole crawl, exponential back-off with full jitter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def backoff(attempt: int, base: float, cap: float, chance: random.Random) -> float:
    """Seconds to wait before trying again: evenly drawn from 0 to `base` doubled `attempt` times, at most to `cap`.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): clients that failed together do not return
    together.
    """
    return chance.uniform(0, min(cap, base * 2.0 ** min(attempt, 60)))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or an HTTP date; None without a readable one."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(min(int(value[:9]), 10**8))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


class Pace:
    """Lets one request go each 1/`rate` s, and none while the crawl is paused."""

    def __init__(self, rate: float) -> None:
        self._spacing = 1 / rate
        self._next = 0.0
        self._resumes = 0.0
        self.paused = 0.0
        """Seconds of pauses in all."""

    async def turn(self) -> None:
        """Wait until a request may go."""
        now = asyncio.get_running_loop().time
        while True:
            moment = max(self._next, self._resumes, now())
            self._next = moment + self._spacing
            await asyncio.sleep(moment - now())
            if now() >= self._resumes:  # else the crawl was paused meanwhile
                return

    def pause(self, seconds: float) -> None:
        """Let nothing go for so many seconds from now, or longer where a pause says so already."""
        now = asyncio.get_running_loop().time()
        resumes = now + seconds
        self.paused += max(0.0, resumes - max(self._resumes, now))
        self._resumes = max(self._resumes, resumes)
        self._next = max(self._next, self._resumes)
