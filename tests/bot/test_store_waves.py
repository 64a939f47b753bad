"""Waves, claims and strikes, on real databases of both kinds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from databases import Place
from rows import decision

from bot.storage.store import BotStore
from bot.storage.tables import APPROVED, CLOSED, DELETED, OPEN, WRONG, Wave

DAY = 86_400
GUILD, USER = 10, 30


def wave(number: int = 1, **changes: Any) -> Wave:
    values: dict[str, Any] = {"guild_id": GUILD, "user_id": USER, "entry": {"messages": [[1, 2]]}, "created_at": 1000}
    return Wave(id=f"{number:032x}", **{**values, **changes})


async def test_of_several_processes_one_claims_a_wave(place: Place) -> None:
    async with BotStore(place.url) as one, BotStore(place.url) as other:
        ids = [f"{number:032x}" for number in range(8)]
        claims = [(one, other)[n % 2].claim_wave(GUILD, USER, id_, 100, 200) for n, id_ in enumerate(ids)]
        claimed = await asyncio.gather(*claims)
        assert len(set(claimed)) == 1
        assert await one.claim_wave(GUILD, 31, ids[1], 100, 200) == ids[1], "another author's is another"
        await one.extend_claim(claimed[0], 900)
        assert await other.claim_wave(GUILD, USER, "f" * 32, 901, 950) == "f" * 32, "that one was over"
        await other.release_claim("f" * 32)
        assert await one.claimed_wave(GUILD, USER, 0) is None


async def test_more_messages_do_not_undo_a_click_or_a_deletion_of_data(place: Place) -> None:
    async with BotStore(place.url) as store:
        await store.record(wave())
        assert await store.settle_wave(wave().id, DELETED, 5)
        assert not await store.settle_wave(wave().id, DELETED, 6)
        await store.record(replace(wave(), entry={"messages": [[1, 2], [3, 4]]}))
        found = await store.wave(wave().id)
        assert found is not None
        assert (found.state, found.moderator_id, len(found.entry["messages"])) == (DELETED, 5, 2)
        await store.reopen_wave(wave().id)
        assert await store.forget_user(USER) == 1
        await store.record(wave())
        found = await store.wave(wave().id)
        assert found is not None
        assert (found.state, found.user_id) == (OPEN, None)
        assert await store.settle_wave(wave().id, DELETED, 5)
        await store.drop_forgotten_wave(wave().id)
        assert await store.wave(wave().id) is None


async def test_a_strike_counts_once_for_its_days_unless_moderators_found_it_wrong(place: Place) -> None:
    now = [5_000_000.0]
    async with BotStore(place.url, clock=lambda: now[0]) as store:
        assert await store.add_strike(GUILD, USER, 1001, 30) == 1
        assert await store.add_strike(GUILD, USER, 1001, 30) == 1
        assert await store.add_strike(GUILD, USER, 1002, 30) == 2
        assert await store.add_strike(11, USER, 1003, 30) == 1, "of another server"
        assert await store.add_strike(GUILD, 31, 1004, 30) == 1, "of another author"
        # A picture was found wrong, but another one of the same message was not.
        await store.record(
            decision(1, state=WRONG), decision(2, state=WRONG), decision(5, message_id=1002, picture="b", state=CLOSED)
        )
        assert await store.add_strike(GUILD, USER, 1005, 30) == 2
        await store.record(decision(6, message_id=1005, state=APPROVED))
        assert await store.add_strike(GUILD, USER, 1006, 30) == 2
        await store.drop_strike(GUILD, 1006)
        now[0] += 31 * DAY
        assert await store.add_strike(GUILD, USER, 1007, 30) == 1


async def test_retention_and_leaving_a_server_delete_waves_and_strikes(place: Place) -> None:
    now = [1000.0]
    async with BotStore(place.url, clock=lambda: now[0]) as store:
        for guild in (GUILD, 11):
            await store.record(wave(guild, guild_id=guild))
            await store.claim_wave(guild, USER, wave(guild).id, 0, 1)
            await store.add_strike(guild, USER, 1, 30)
        await store.forget_guild(11)
        for table, count in (("waves", 1), ("wave_claims", 1), ("strikes", 1)):
            assert len(place.sql(f"SELECT * FROM {table}")) == count
        now[0] += 91 * DAY
        await store.sweep(90)
        for table in ("waves", "wave_claims", "strikes"):
            assert place.sql(f"SELECT * FROM {table}") == []
