"""How far long work is: a bar on a terminal, and elsewhere a log line every `INTERVAL` seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Self, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

INTERVAL = 30.0
"""Seconds between two log lines."""

Item = TypeVar("Item")


class Progress:
    """Counts what is done and what failed. Use it as a context manager, and call `update`."""

    def __init__(
        self, what: str, total: int | None = None, unit: str = "picture", delay: Callable[[], float] = lambda: 0.0
    ) -> None:
        """Begin.

        Args:
            what: names the work, as `download`.
            total: how much there is to do, if that is known.
            unit: of what is counted; `B` for bytes.
            delay: seconds in which nothing will be done, as far as is known now: they are part of the time left.
        """
        self.n = 0
        """How much is done, failures and skipped ones included."""
        self._what, self._total, self._unit, self._delay = what, total, unit, delay
        self._skipped = 0
        self._failures: Counter[str] = Counter()
        self._started = time.monotonic()
        self._ended = threading.Event()
        # Without smoothing, the bar shows the average rate: pauses would make a recent one jump.
        self._bar = tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", smoothing=0, disable=None)

    def __enter__(self) -> Self:
        if self._bar.disable:  # no terminal
            threading.Thread(target=self._log, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._bar.close()

    def update(self, count: int = 1, failure: str | None = None) -> None:
        """Count what is done; `failure` is the reason if it failed."""
        self.n += count
        if failure:
            self._failures[failure] += count
            self._bar.set_postfix(failed=self._failures.total(), refresh=False)
        self._bar.update(count)

    def skip(self, count: int) -> None:
        """Count what was done before, which says nothing about the rate."""
        self._skipped += count
        self.update(count)

    def _log(self) -> None:
        while not self._ended.wait(INTERVAL):
            log.info("%s", str(self))  # as it is now: a handler may format it later

    def __str__(self) -> str:
        """`download: 300 of 4,000 pictures, 2 failed (2 missing), 3.9 per second, 0:15:48 left`."""
        done = self.n - self._skipped
        seconds = time.monotonic() - self._started
        parts = [f"{self._what}: {self._amount()}"]
        if self._failures:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._failures.most_common())
            parts.append(f"{self._failures.total():,} failed ({reasons})")
        if done:
            rate, name = (done / seconds / 1e6, " MB") if self._unit == "B" else (done / seconds, "")
            parts.append(f"{rate:,.0f}{name} per second" if rate >= 100 else f"{rate:.3g}{name} per second")
        if done and self._total is not None:
            left = (self._total - self.n) * seconds / done + self._delay()
            parts.append(f"{timedelta(seconds=round(max(0.0, left)))} left")
        elif delay := round(self._delay()):
            parts.append(f"paused for {timedelta(seconds=delay)} more")
        return ", ".join(parts)

    def _amount(self) -> str:
        scale, name = (1e6, "MB") if self._unit == "B" else (1, f"{self._unit}s")
        total = "" if self._total is None else f" of {self._total / scale:,.0f}"
        return f"{self.n / scale:,.0f}{total} {name}"


def track(items: Iterable[Item], what: str, total: int | None = None, unit: str = "picture") -> Iterator[Item]:
    """Yield the items, each of which counts as done when the next one is asked for."""
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
