"""Whose turn it is: servers and authors in turn, a bounded line, a budget of bytes; nothing is lost when calls end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pictures import fairness
from bot.pictures.fairness import FairQueue, QueueFullError

FLOOD, QUIET = 1, 2
TURNS = itertools.count(1)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """A call that holds its turn until it is let go."""

    def __init__(self, queue: FairQueue, guild: int, author: int, size: int) -> None:
        self.guild, self.author = guild, author
        self._release = asyncio.Event()
        self.held = 0
        """Since which of all turns it has one; 0: it has none."""
        self.task = asyncio.create_task(self._hold(queue, guild, author, size))

    async def _hold(self, queue: FairQueue, guild: int, author: int, size: int) -> None:
        async with queue.turn(guild, author, size):
            self.held = next(TURNS)
            try:
                await self._release.wait()
            finally:
                self.held = 0

    async def let_go(self) -> None:
        self._release.set()
        await self.task
        await settled()

    @property
    def refused(self) -> bool:
        return self.task.done() and isinstance(self.task.exception(), QueueFullError)


class Room:
    """A queue, and all who came to it."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.all: list[Holder] = []

    async def come(self, guild: int, author: int, size: int = 0, times: int = 1) -> list[Holder]:
        came = [Holder(self.queue, guild, author, size) for _ in range(times)]
        self.all += came
        await settled()
        return came

    def holding(self) -> list[Holder]:
        """Those with a turn, the longest first."""
        return sorted((each for each in self.all if each.held), key=lambda each: each.held)

    async def order(self) -> list[tuple[int, int]]:
        """Let all go, one after the other: who gets a turn after those who have one now."""
        seen, order = set(self.holding()), []
        while holding := self.holding():
            await holding[0].let_go()
            for each in self.holding():
                if each not in seen:
                    seen.add(each)
                    order.append((each.guild, each.author))
        return order


@pytest.fixture
async def rooms() -> AsyncIterator[type[Room]]:
    async with asyncio.timeout(1800):
        yield Room


async def test_the_first_picture_of_another_server_finds_a_slot_at_once(rooms: type[Room]) -> None:
    room = rooms(FairQueue(16))
    await room.come(FLOOD, 1, times=500)
    flooding = len(room.holding())
    assert 4 <= flooding <= 8, "one author gets a good part, and not all"
    await asyncio.gather(*(room.come(FLOOD, author, times=50) for author in range(2, 20)))
    assert len(room.holding()) == 8, "neither does one server"
    for guild in (QUIET, 3):
        (quiet,) = await room.come(guild, 99)
        assert quiet.held, "others do not wait at all"


async def test_servers_take_turns_and_so_do_authors_within_one(rooms: type[Room]) -> None:
    room = rooms(FairQueue(1))
    await room.come(9, 9)
    await room.come(1, 10, times=4)
    await room.come(1, 11, times=2)
    await room.come(2, 20, times=3)
    order = await room.order()
    assert [guild for guild, _ in order] == [1, 2, 1, 2, 1, 2, 1, 1, 1]
    assert [author for guild, author in order if guild == 1] == [10, 11, 10, 11, 10, 10]


@pytest.mark.parametrize("flood", [10, 100, 1000])
async def test_how_long_others_wait_does_not_depend_on_the_flood(rooms: type[Room], flood: int) -> None:
    room = rooms(FairQueue(2))
    await room.come(FLOOD, 1, times=flood)
    await room.come(FLOOD, 2, times=3)
    await room.come(QUIET, 3, times=3)
    order = await room.order()
    assert max(place for place, (guild, _) in enumerate(order) if guild == QUIET) < 6
    assert max(place for place, (_, author) in enumerate(order) if author == 2) < 12


async def test_of_a_full_queue_the_flood_is_refused(rooms: type[Room]) -> None:
    room = rooms(FairQueue(2, limit=10))
    quiet = await room.come(QUIET, 3, times=2)
    busy = await room.come(FLOOD, 2, times=2)
    flood = await room.come(FLOOD, 1, times=100)
    late = [*await room.come(QUIET, 4, times=2), *await room.come(3, 5)]
    assert room.queue.length == 10
    assert not any(each.refused for each in [*quiet, *busy, *late])
    assert sum(each.refused for each in flood) == 97
    assert not flood[0].refused, "the newest are refused first"
    assert {author for _, author in await room.order()} >= {1, 2, 4, 5}


async def test_an_authors_slow_work_leaves_a_worker_to_others(
    rooms: type[Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, now = rooms(FairQueue(2, slow_after=1.0)), 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    first = await room.come(FLOOD, 1, times=6)
    assert [bool(each.held) for each in first] == [True, True, *[False] * 4], "nobody knows yet"
    now += 2
    await first[0].let_go()
    await first[1].let_go()
    assert len(room.holding()) == 1, "now it leaves one free"
    (other,) = await room.come(QUIET, 2)
    assert other.held
    await other.let_go()
    (partner,) = await room.come(3, 1)
    assert not partner.held, "the same author in another server"
    await room.order()
    now += fairness.SLOW_SECONDS + 1
    await room.come(FLOOD, 1, times=2)
    assert len(room.holding()) == 2, "forgiven after a while"
    await room.order()


async def test_large_pictures_of_one_server_leave_memory_to_others(rooms: type[Room]) -> None:
    room = rooms(FairQueue(16, budget=64))
    large = await room.come(FLOOD, 1, size=25, times=10)
    assert sum(bool(each.held) for each in large) == 1
    assert (await room.come(QUIET, 2, size=1))[0].held
    assert (await room.come(3, 3, size=25))[0].held
    assert (await room.come(4, 4, size=10))[0].held
    assert not (await room.come(5, 5, size=25))[0].held, "the budget is spent"
    await room.order()


async def test_a_picture_over_the_budget_goes_alone(rooms: type[Room]) -> None:
    room = rooms(FairQueue(16, budget=10))
    (huge,) = await room.come(1, 1, size=50)
    (small,) = await room.come(2, 2, size=1)
    assert (bool(huge.held), bool(small.held)) == (True, False)
    await huge.let_go()
    assert small.held
    await small.let_go()


async def test_a_large_picture_is_overtaken_only_so_often(rooms: type[Room], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_OVERTAKEN", 5)
    room = rooms(FairQueue(16, budget=10))
    await room.come(1, 1, size=4)
    (large,) = await room.come(2, 2, size=8)
    small = [(await room.come(guild, guild, size=1))[0] for guild in range(10, 30)]
    overtook = sum(bool(each.held) for each in small)
    assert overtook == 5
    for each in list(room.holding()):
        await each.let_go()
    assert large.held
    await room.order()


Visit = tuple[int, int, int, int, int, int | None]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 3),
            st.integers(0, 14),
            st.integers(0, 6),
            st.integers(0, 6),
            st.none() | st.integers(0, 12),
        ),
        min_size=1,
        max_size=25,
    ),
    st.integers(1, 5),
    st.sampled_from([0, 8]),
    st.sampled_from([0, 10]),
    st.sampled_from([None, 0.0]),
)
def test_limits_hold_and_nobody_waits_for_ever(
    visits: list[Visit], slots: int, limit: int, budget: int, slow_after: float | None
) -> None:
    """Each visit: server, author, bytes; turns of the loop before it asks, and while it holds; when it is cancelled."""
    held: dict[int, int] = {}

    async def one(queue: FairQueue, number: int, visit: Visit) -> None:
        guild, author, size, before, during, _ = visit
        for _ in range(before):
            await asyncio.sleep(0)
        async with queue.turn(guild, author, size):
            held[number] = size
            try:
                assert len(held) <= slots
                assert not budget or sum(held.values()) <= budget or len([each for each in held.values() if each]) == 1
                for _ in range(during):
                    await asyncio.sleep(0)
            finally:
                del held[number]

    async def all_of_them() -> None:
        queue = FairQueue(slots, limit, budget, slow_after)
        tasks = [asyncio.create_task(one(queue, number, visit)) for number, visit in enumerate(visits)]
        for turn in range(13):
            for task, visit in zip(tasks, visits, strict=True):
                if visit[-1] == turn:
                    task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(1800):
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in done if each and not isinstance(each, asyncio.CancelledError | QueueFullError)]
        if not limit:
            assert all(done[number] is None for number, visit in enumerate(visits) if visit[-1] is None)
        assert queue.length == 0
        assert (queue._used, queue._running, queue._running_slow) == (0, 0, 0)
        assert not any((queue._held, queue._held_by, queue._bytes, queue._guilds))

    asyncio.run(all_of_them())
