"""The table of appeals, on real databases of both kinds: each step is taken once, whichever process takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from databases import Place

from bot.storage.appeals import MAX_NOTICES_A_DAY, MAX_NOTICES_A_MINUTE, Appeals
from bot.storage.store import BotStore
from bot.storage.tables import APPEALED, REVERSED, SENT, UPHELD, Appeal

NOW = 1_000_000
APPEAL = Appeal(message_id=1, guild_id=10, channel_id=20, user_id=2**63 - 1, label="Größe 🐎", action=3, created_at=NOW)


@pytest.fixture
async def two(place: Place) -> AsyncIterator[tuple[Appeals, Appeals]]:
    """Of two processes on one database."""
    async with BotStore(place.url, lambda: NOW) as one, BotStore(place.url, lambda: NOW) as other:
        yield Appeals(one), Appeals(other)


async def test_each_step_is_taken_by_one_of_two_processes(two: tuple[Appeals, Appeals]) -> None:
    assert sorted(await asyncio.gather(*(each.begin(APPEAL) for each in two))) == [False, True]
    assert sorted(await asyncio.gather(*(each.send(1, APPEAL.user_id, "ä") for each in two))) == [False, True]
    assert [each.text for each in await two[1].due([10])] == ["ä"]
    await two[0].posted(1)
    assert await two[1].due([10]) == []
    decided = await asyncio.gather(two[0].settle(1, UPHELD, 5), two[1].settle(1, REVERSED, 6))
    assert sorted(decided) == [False, True]
    found = await two[0].find(1)
    assert found is not None
    assert (found.state, found.moderator_id) == ((UPHELD, 5) if decided[0] else (REVERSED, 6))
    assert found.text is None


async def test_no_step_can_be_skipped_or_taken_by_others(two: tuple[Appeals, Appeals]) -> None:
    one = two[0]
    assert await one.find(1) is None
    assert not await one.send(1, APPEAL.user_id, "x")
    await one.begin(APPEAL)
    assert not await one.send(1, 7, "x"), "not theirs"
    assert not await one.settle(1, UPHELD, 5), "nobody has appealed"
    await one.send(1, APPEAL.user_id, "x")
    assert not await one.settle(1, UPHELD, 5), "no moderator could read it"
    assert await one.due([11]) == [], "of other servers"
    (waiting,) = await one.due([10])
    assert waiting == replace(APPEAL, state=SENT, text="x", appealed_at=NOW, due_at=NOW)
    await one.postpone(waiting, NOW + 10)
    assert await one.due([10]) == []
    await one.posted(1)
    await one.settle(1, UPHELD, 5)
    await one.reopen(1, UPHELD)
    found = await one.find(1)
    assert found is not None
    assert (found.state, found.moderator_id) == (APPEALED, None)
    await one.withdraw(1)
    assert await one.find(1) is not None, "only who was not told is forgotten"


async def test_notices_are_bounded_by_author_and_by_minute(two: tuple[Appeals, Appeals]) -> None:
    mine = [await two[0].begin(replace(APPEAL, message_id=number)) for number in range(MAX_NOTICES_A_DAY + 2)]
    assert mine.count(True) == MAX_NOTICES_A_DAY
    others = [
        await two[0].begin(replace(APPEAL, message_id=100 + number, user_id=number))
        for number in range(MAX_NOTICES_A_MINUTE)
    ]
    assert others.count(True) == MAX_NOTICES_A_MINUTE - MAX_NOTICES_A_DAY
