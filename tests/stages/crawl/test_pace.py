"""Rate, pauses, back-off and `Retry-After`."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crawl.pace import LONGEST, Pace, backoff, retry_after

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@given(st.integers(0, 2000), st.floats(0.001, 100), st.floats(0.001, 1000), st.integers())
def test_a_wait_is_never_over_the_doubling_bound_nor_the_cap(attempt: int, base: float, cap: float, seed: int) -> None:
    wait = backoff(attempt, base, cap, random.Random(seed))
    assert 0 <= wait <= cap
    assert attempt > 20 or wait <= base * 2**attempt


def test_waits_use_the_whole_range() -> None:
    chance = random.Random(0)
    waits = sorted(backoff(3, 1, 60, chance) for _ in range(2000))
    assert waits[0] < 0.1
    assert waits[-1] > 7.9
    assert 3.7 < sum(waits) / len(waits) < 4.3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 400, LONGEST),
        ("86401", LONGEST),
        ("Mon, 1 Jan 99999999999999999999 00:00:00 GMT", LONGEST),
        ("Mon, 1 Jan 10000 00:00:00 GMT", LONGEST),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
        ("Mon, 99 Jan 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}, NOW) == seconds


@given(
    st.text(max_size=60) | st.from_regex(r"\w{3}, \d{1,25} \w{3} \d{1,25} [\d:]{1,30} [A-Z+\d-]{1,9}", fullmatch=True)
)
def test_whatever_a_host_writes_is_a_pause_or_nothing(value: str) -> None:
    seconds = retry_after({"Retry-After": value}, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST


def test_no_header_asks_for_nothing() -> None:
    assert retry_after({}) is None


async def test_requests_are_spaced_evenly_however_many_ask() -> None:
    pace = Pace(rate=100)
    now = asyncio.get_running_loop().time
    moments: list[float] = []

    async def ask() -> None:
        await pace.turn()
        moments.append(now())

    await asyncio.gather(*(ask() for _ in range(20)))
    assert max(moments) - min(moments) >= 0.19 - 0.005


async def test_a_pause_holds_back_those_that_wait_already() -> None:
    pace = Pace(rate=1000)
    now = asyncio.get_running_loop().time
    start = now()
    waiting = [asyncio.create_task(pace.turn()) for _ in range(50)]
    await asyncio.sleep(0.01)
    pace.pause(0.2)
    await asyncio.gather(*waiting)
    assert now() - start >= 0.2
    assert pace.paused == pytest.approx(0.2, abs=0.001)


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    pace = Pace(rate=1000)
    start = asyncio.get_running_loop().time()
    pace.pause(0.2)
    pace.pause(0.01)
    await pace.turn()
    assert asyncio.get_running_loop().time() - start >= 0.2
    assert pace.paused == pytest.approx(0.2, abs=0.001)
