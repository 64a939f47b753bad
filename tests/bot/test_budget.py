"""How many bytes of pictures are held at a time: never more than the budget, first come first served, none leaked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pictures.judging import Judge, JudgeCaps

BUDGET = 10


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    judge = Judge(JudgeCaps(budget=BUDGET))
    async with asyncio.timeout(1800):
        yield judge
        await settled()
        await nothing_is_held(judge)
    judge.close()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def holding(judge: Judge, size: int) -> asyncio.Task[None]:
    task = asyncio.create_task(judge.reserve(size))
    await settled()
    return task


async def nothing_is_held(judge: Judge) -> None:
    """The whole budget may be had at once, and not a byte more."""
    whole = await holding(judge, BUDGET)
    assert whole.done()
    more = await holding(judge, 1)
    assert not more.done()
    judge.release(BUDGET)
    await settled()
    assert more.done()
    judge.release(1)


async def test_what_fits_the_budget_is_admitted_at_once_and_the_rest_waits(judge: Judge) -> None:
    six, four, one = [await holding(judge, size) for size in (6, 4, 1)]
    assert (six.done(), four.done(), one.done()) == (True, True, False)
    judge.release(4)
    await settled()
    assert one.done()
    judge.release(6)
    judge.release(1)


async def test_small_pictures_do_not_overtake_a_large_one(judge: Judge) -> None:
    await judge.reserve(6)
    large, small = await holding(judge, 8), await holding(judge, 1)
    assert (large.done(), small.done()) == (False, False)
    judge.release(6)
    await settled()
    assert (large.done(), small.done()) == (True, True)
    judge.release(8)
    judge.release(1)


async def test_a_picture_over_the_whole_budget_is_admitted_alone(judge: Judge) -> None:
    await judge.reserve(1)
    huge, small = await holding(judge, 50), await holding(judge, 1)
    assert (huge.done(), small.done()) == (False, False)
    judge.release(1)
    await settled()
    assert (huge.done(), small.done()) == (True, False)
    judge.release(50)
    await settled()
    assert small.done()
    judge.release(1)


async def test_a_cancelled_caller_lets_those_behind_it_in(judge: Judge) -> None:
    await judge.reserve(6)
    large, small = await holding(judge, 8), await holding(judge, 4)
    assert not small.done()
    large.cancel()
    await settled()
    assert small.done(), "though nobody gave anything back"
    judge.release(6)
    judge.release(4)


async def test_a_caller_cancelled_while_being_admitted_reserves_nothing(judge: Judge) -> None:
    await judge.reserve(10)
    first, second = await holding(judge, 10), await holding(judge, 10)
    judge.release(10)
    first.cancel()
    await settled()
    assert first.cancelled()
    assert second.done()
    judge.release(10)


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(1, 14), st.integers(0, 6), st.integers(0, 6), st.none() | st.integers(0, 12)),
        min_size=1,
        max_size=25,
    )
)
def test_under_concurrency_the_budget_holds_and_nobody_waits_for_ever(
    asked: list[tuple[int, int, int, int | None]],
) -> None:
    """Each of `asked`: bytes; turns of the loop before it asks, and while it holds; the turn it is cancelled at."""
    held: dict[int, int] = {}
    came: list[int] = []
    let_in: list[int] = []

    async def one(judge: Judge, number: int, size: int, before: int, during: int) -> None:
        for _ in range(before):
            await asyncio.sleep(0)
        suspended: list[bool] = []
        asyncio.get_running_loop().call_soon(suspended.append, True)
        came.append(number)
        await judge.reserve(size)
        held[number] = size
        if suspended:
            let_in.append(number)
        try:
            assert sum(held.values()) <= BUDGET or len(held) == 1
            for _ in range(during):
                await asyncio.sleep(0)
        finally:
            del held[number]
            judge.release(size)

    async def all_of_them() -> None:
        judge = Judge(JudgeCaps(budget=BUDGET))
        tasks = [asyncio.create_task(one(judge, number, *each[:3])) for number, each in enumerate(asked)]
        for turn in range(13):
            for task, each in zip(tasks, asked, strict=True):
                if each[3] == turn:
                    task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(1800):
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in done if each and not isinstance(each, asyncio.CancelledError)]
        assert all(done[number] is None for number, each in enumerate(asked) if each[3] is None)
        await nothing_is_held(judge)
        judge.close()

    asyncio.run(all_of_them())
    assert let_in == [number for number in came if number in let_in], "of those that wait, the first goes first"
