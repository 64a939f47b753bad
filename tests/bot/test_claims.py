"""Each picture of a message is one check's, however many edits arrive at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from databases import Place
from rows import decision

from bot.actions import claims as claims_module
from bot.actions.claims import Claims
from bot.pictures.examining import Finding
from bot.pictures.references import Reference
from bot.rules.policy import RuleOutcome
from bot.storage.store import BotStore

PICTURES = [Reference(f"attachment:{number}", "attachment", "") for number in (1, 2)]


@pytest.fixture
async def store(place: Place) -> AsyncIterator[BotStore]:
    async with BotStore(place.url) as store:
        yield store


def found(reference: Reference, origin: str) -> Finding:
    return Finding(reference, "clean", origin, RuleOutcome(), "moderator@v1.0.0")


async def keys(claims: Claims, *, again: bool = False, unjudged: bool = False) -> list[str]:
    return [picture.key for picture in await claims.claim(7, PICTURES, again, unjudged)]


async def test_an_edit_during_the_first_look_does_not_claim_what_was_decided(store: BotStore) -> None:
    await store.record(decision(1, message_id=7, picture="attachment:1"))
    claims = Claims(store)
    both = await asyncio.gather(*(keys(claims, again=True) for _ in range(5)))
    assert sorted(both) == [[], [], [], [], ["attachment:2"]]


async def test_an_edit_finds_the_pictures_of_a_new_message_taken(store: BotStore) -> None:
    claims = Claims(store)
    assert await keys(claims) == ["attachment:1", "attachment:2"]
    assert await keys(claims, again=True) == []


async def test_unjudged_pictures_are_looked_at_again_on_demand_alone(store: BotStore) -> None:
    await store.record(decision(1, message_id=7, picture="attachment:1", origin="unjudged", verdict="corrupt"))
    claims = Claims(store)
    assert await keys(claims, again=True) == ["attachment:2"]
    claims.release(7, PICTURES[1:], [found(PICTURES[1], "model")])
    assert await keys(claims, again=True, unjudged=True) == ["attachment:1"]
    assert await keys(claims, again=True, unjudged=True) == [], "it is in progress"
    claims.release(7, PICTURES[:1], [found(PICTURES[0], "unjudged")])
    assert await keys(claims, again=True) == []
    assert await keys(claims, unjudged=True) == ["attachment:1"]


async def test_what_was_broken_off_may_be_claimed_again(store: BotStore) -> None:
    claims = Claims(store)
    await keys(claims)
    await store.record(decision(1, message_id=7, picture="attachment:1"))
    claims.release(7, PICTURES, None)
    assert await keys(claims, again=True) == ["attachment:2"]


async def test_messages_in_progress_are_not_forgotten(store: BotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "REMEMBERED_MESSAGES", 3)
    claims = Claims(store)
    await keys(claims)
    for message in range(100, 120):
        await claims.claim(message, PICTURES, False, False)
        claims.release(message, PICTURES, [])
    assert await keys(claims) == []
    assert len(claims._messages) <= 4


async def test_without_a_database_the_next_edit_asks_again(place: Place, store: BotStore) -> None:
    await store.record(decision(1, message_id=7, picture="attachment:1"))
    claims = Claims(store)
    place.away()
    assert await claims.claim(7, PICTURES[1:], True, False) == PICTURES[1:]
    place.back()
    assert await keys(claims, again=True) == []
