"""What the bot remembers, on real databases of both kinds."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from databases import Place
from rows import decision, ruling, scored

from bot.rules.policy import Action, GuildPolicy, Mode, ModerationRule, ScopedRule
from bot.rules.scopes import Scope
from bot.storage import store as store_module
from bot.storage.store import MODLOG, RULES, BotStore
from bot.storage.tables import (
    ACTED,
    APPROVED,
    CLOSED,
    DELETED,
    OPEN,
    PLANNED,
    POSTED,
    SCHEMA,
    WRONG,
    Decision,
    Job,
    Retry,
    decisions,
    signed,
    unsigned,
)

DAY = 86_400
POLICY = GuildPolicy(
    Mode.ENFORCE,
    (ModerationRule("flagged", 0.7, Action.DELETE, ping=True),),
    2**63 - 1,
    5,
    frozenset({7}),
    timeout_minutes=3,
    scoped_rules=(ScopedRule("flagged", 0.5, Action.FLAG, scope=Scope(2**63 - 1, 6, 7)),),
    exempt_moderators=False,
    tell_author=True,
)


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.9

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(place: Place, clock: Clock) -> AsyncIterator[BotStore]:
    async with BotStore(place.url, clock) as store:
        yield store


@pytest.fixture
async def other(place: Place, store: BotStore) -> AsyncIterator[BotStore]:
    """Another process's store, on the same database."""
    async with BotStore(place.url) as other:
        yield other


async def kept(store: BotStore) -> set[str]:
    """Their ids."""
    return {each.id for each in await store.decisions()}


@pytest.mark.parametrize("phash", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_hash_fits_a_signed_column_and_comes_back(phash: int) -> None:
    assert -(2**63) <= signed(phash) < 2**63
    assert unsigned(signed(phash)) == phash


async def test_a_guild_without_settings_has_the_defaults(store: BotStore) -> None:
    assert await store.policy(1) == GuildPolicy()


async def test_settings_are_kept_and_replaced(store: BotStore, other: BotStore) -> None:
    for policy in (GuildPolicy(), GuildPolicy(modlog=1), POLICY):
        await store.set_policy(1, policy)
        assert await store.policy(1) == policy
    await store.set_policy(2**63 - 1, GuildPolicy(modlog=2))
    assert [await other.policy(guild) for guild in (1, 2**63 - 1, 3)] == [POLICY, GuildPolicy(modlog=2), GuildPolicy()]


async def test_settings_that_two_set_at_once_are_those_of_one(store: BotStore, other: BotStore, place: Place) -> None:
    for _ in range(3):
        every = [GuildPolicy(modlog=number) for number in range(10)]
        await asyncio.gather(*((store, other)[number % 2].set_policy(1, each) for number, each in enumerate(every)))
        async with BotStore(place.url) as third:
            assert await third.policy(1) in every


async def test_of_two_changes_at_once_none_is_lost(store: BotStore) -> None:
    def raised(policy: GuildPolicy) -> GuildPolicy:
        return replace(policy, timeout_minutes=policy.timeout_minutes + 1)

    await asyncio.gather(*(store.change_policy(1, raised) for _ in range(10)))
    assert (await store.policy(1)).timeout_minutes == 20


async def test_memory_is_bounded_and_nothing_is_forgotten(store: BotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CACHED", 3)
    for number in range(8):
        await store.set_policy(number, GuildPolicy(modlog=number))
        await store.save_scores(scored(number))
    assert [(await store.policy(number)).modlog for number in range(8)] == list(range(8))
    assert all([await store.find_scores(f"{number:064x}", "m" * 32) for number in range(8)])
    assert max(len(store._policies), len(store._scores)) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"phash": 2**63 - 1},
        {"phash": 2**63},
        {"phash": 0},
        {"phash": None, "sha256": None, "threshold": None, "scores": {}},
        {"message_id": 2**63 - 1, "user_id": 2**62, "guild_id": 0},
        {"verdict": "+".join(["a label of many words"] * 40), "label": "long " * 60, "detail": "x" * 300},
        {"state": WRONG, "moderator_id": 3, "decided_at": 4, "user_id": None},
        {"score": 5e-324, "scores": {"é\u2028\"'": 1.0, "b": 0.0}},
    ],
    ids=lambda changes: "+".join(changes) or "usual",
)
async def test_a_decision_comes_back_as_it_was(store: BotStore, other: BotStore, changes: dict[str, Any]) -> None:
    await store.record(decision(**changes))
    assert await other.decisions() == [decision(**changes)]
    assert store.waiting == 0


async def test_the_first_decision_on_a_picture_of_a_message_stays(store: BotStore, other: BotStore) -> None:
    first = decision(1)
    again = replace(decision(2), message_id=first.message_id, label="other")
    await store.record(first)
    await asyncio.gather(*(each.record(replace(again, id=f"{n:032}")) for n in range(5) for each in (store, other)))
    await store.record(replace(again, picture="attachment:2"))
    assert {(each.picture, each.id) for each in await store.decisions()} == {
        ("attachment:1", first.id),
        ("attachment:2", again.id),
    }
    assert (store.waiting, other.waiting) == (0, 0)


async def test_decisions_are_listed_newest_first(store: BotStore) -> None:
    every = [decision(number, guild_id=number % 2) for number in (3, 1, 4, 2, 5)]
    for each in every:
        await store.record(each)
    newest = sorted(every, key=lambda each: -each.created_at)
    assert await store.decisions() == newest
    assert await store.decisions(limit=2) == newest[:2]
    assert await store.decisions(decisions.c.guild_id == 1, limit=2) == [
        decision(5, guild_id=1),
        decision(3, guild_id=1),
    ]
    assert await store.decisions_on(1003) == {"attachment:1": decision(3, guild_id=1)}
    assert await store.decisions_on(1) == {}
    assert len(await store.decisions()) == 5


async def open_ones(store: BotStore, *numbers: int) -> list[Decision]:
    every = [decision(number, message_id=7, picture=f"attachment:{number}", state=OPEN) for number in numbers]
    for each in every:
        await store.record(each)
    return every


async def test_of_many_moderators_at_once_one_is_first(store: BotStore, other: BotStore, clock: Clock) -> None:
    every = await open_ones(store, 1, 2, 3)
    await store.record(decision(4, message_id=7, picture="attachment:4", state=CLOSED))
    await store.record(decision(5, state=OPEN))
    won = await asyncio.gather(*((store, other)[number % 2].settle(7, DELETED, number) for number in range(20)))
    assert won.count(True) == 1
    moderator = won.index(True)
    found = await store.decisions_on(7)
    for each in every:
        settled = found[each.picture]
        assert settled.decided_at is not None
        assert settled == replace(each, state=DELETED, moderator_id=moderator, decided_at=settled.decided_at)
    assert found["attachment:4"].state == CLOSED
    assert (await store.decisions_on(1005))["attachment:1"].state == OPEN


async def test_a_decision_is_settled_once_with_the_time(store: BotStore, clock: Clock) -> None:
    await open_ones(store, 1)
    assert not await store.settle(8, APPROVED, 5)
    assert await store.settle(7, APPROVED, None)
    assert (await store.decisions_on(7))["attachment:1"].decided_at == 1_000_000
    assert not await store.settle(7, APPROVED, 5)


async def test_a_failed_action_reopens_the_decision(store: BotStore) -> None:
    every = await open_ones(store, 1, 2)
    await store.settle(7, DELETED, 5)
    await store.reopen(7, APPROVED)
    assert {each.state for each in await store.decisions()} == {DELETED}
    await store.reopen(7, DELETED)
    assert list((await store.decisions_on(7)).values()) == every[::-1]
    assert await store.settle(7, APPROVED, 6)


async def test_rulings_are_of_a_guild_and_the_last_one_counts(store: BotStore, other: BotStore) -> None:
    await store.save_ruling(ruling(1))
    await other.save_ruling(ruling(1, allowed=False, label="other", phash=2**64 - 1, created_at=2000))
    await store.save_ruling(ruling(2, phash=0))
    await store.save_ruling(ruling(1, guild_id=11))
    found = sorted(await store.rulings(10), key=lambda each: each.sha256)
    assert found == [ruling(1, allowed=False, label="other", phash=2**64 - 1, created_at=2000), ruling(2, phash=0)]
    assert (await store.rulings(11), await store.rulings(12)) == ([ruling(1, guild_id=11)], [])


async def test_moderators_who_rule_on_a_picture_at_once_all_succeed(store: BotStore, other: BotStore) -> None:
    every = [ruling(1, created_at=number) for number in range(20)]
    await asyncio.gather(*((store, other)[number % 2].save_ruling(each) for number, each in enumerate(every)))
    assert (await store.rulings(10))[0] in every
    assert len(await store.rulings(10)) == 1


async def test_scores_are_of_a_picture_and_a_model(
    store: BotStore, other: BotStore, place: Place, clock: Clock
) -> None:
    await store.save_scores(scored(1))
    await other.save_scores(scored(1, scores={"a": 0.9}))
    for each in (store, other):
        assert await each.find_scores(f"{2:064x}", "m" * 32) is None
        assert await each.find_scores(f"{1:064x}", "n" * 32) is None
    async with BotStore(place.url) as later:
        found = await later.find_scores(f"{1:064x}", "m" * 32)
        assert found == scored(1, created_at=1_000_000)
        assert await later.find_scores(f"{1:064x}", "m" * 32) == found


async def test_a_users_rows_are_removed_in_one_guild_or_in_all(store: BotStore) -> None:
    rows = [
        decision(1, user_id=30, guild_id=10),
        decision(2, user_id=30, guild_id=11),
        decision(3, user_id=31, guild_id=10),
        decision(4, user_id=30, guild_id=10, state=OPEN),
        decision(5, user_id=30, guild_id=11, state=OPEN),
        decision(6, user_id=30, guild_id=10, state=DELETED),
    ]
    for each in rows:
        await store.record(each)
    assert await store.forget_user(30, 10) == 3
    assert await kept(store) == {each.id for each in (rows[1], rows[2], rows[3], rows[4])}
    users = {each.id: each.user_id for each in await store.decisions()}
    assert [users[rows[place].id] for place in (1, 2, 3, 4)] == [30, 31, None, 30]
    assert await store.forget_user(30) == 2
    assert await kept(store) == {each.id for each in (rows[2], rows[3], rows[4])}
    assert {each.user_id for each in await store.decisions()} == {31, None}
    assert await store.forget_user(30) == 0
    assert await store.settle(rows[3].message_id, DELETED, 1), "moderators can still look at it"


async def test_forget_guild_deletes_all_rows_of_a_guild(store: BotStore, other: BotStore) -> None:
    for guild in (10, 11):
        await store.set_policy(guild, POLICY)
        await store.record(decision(guild, guild_id=guild))
        await store.record(decision(guild + 100, guild_id=guild, state=OPEN))
        await store.save_ruling(ruling(1, guild_id=guild))
    await store.save_scores(scored(1))
    await store.forget_guild(10)
    for each in (store, other):
        assert (await each.policy(10), await each.policy(11)) == (GuildPolicy(), POLICY)
        assert await each.rulings(10) == []
        assert len(await each.rulings(11)) == 1
        assert {row.guild_id for row in await each.decisions()} == {11}
        assert await each.find_scores(f"{1:064x}", "m" * 32)


async def test_rows_older_than_the_retention_are_deleted(store: BotStore, other: BotStore, clock: Clock) -> None:
    now = int(clock.time)
    ages = (0, 30 * DAY, 30 * DAY + 1, 31 * DAY)
    for number, age in enumerate(ages):
        await store.record(decision(number, created_at=now - age, state=OPEN if number % 2 else CLOSED))
        await store.save_ruling(ruling(number, created_at=now - age))
        clock.time = now - age
        await store.save_scores(scored(number))
    clock.time = now + 0.9
    await store.set_policy(10, POLICY)
    assert await store.sweep(30) == 6
    assert await kept(store) == {f"{number:032x}" for number in (0, 1)}
    assert {each.sha256 for each in await store.rulings(10)} == {f"{number:064x}" for number in (0, 1)}
    assert [bool(await other.find_scores(f"{number:064x}", "m" * 32)) for number in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert await store.sweep(30) == 0
    clock.time += 31 * DAY
    assert await store.sweep(30) == 6
    assert await store.decisions() == []
    assert await other.policy(10) == POLICY


async def test_the_bots_own_values_are_stored(store: BotStore, other: BotStore) -> None:
    assert await store.get("commands") is None
    await asyncio.gather(*(each.put("commands", "first") for each in (store, other)))
    await store.put("commands", "second")
    assert (await other.get("commands"), await store.get("schema")) == ("second", str(SCHEMA))


async def test_some_pictures_of_a_message_are_settled_and_reopened(store: BotStore) -> None:
    await open_ones(store, 1, 2, 3)
    assert not await store.settle(7, DELETED, 5, ["attachment:9"])
    assert await store.settle(7, APPROVED, 5, ["attachment:1"])
    assert await store.settle(7, APPROVED, 6, ["attachment:1", "attachment:2"])
    found = {key: (row.state, row.moderator_id) for key, row in (await store.decisions_on(7)).items()}
    assert found == {"attachment:1": (APPROVED, 5), "attachment:2": (APPROVED, 6), "attachment:3": (OPEN, None)}
    await store.reopen(7, APPROVED, ["attachment:2"])
    assert {key for key, row in (await store.decisions_on(7)).items() if row.state == APPROVED} == {"attachment:1"}


async def test_what_an_author_had_deleted_goes_with_the_decision(store: BotStore) -> None:
    await open_ones(store, 1, 2)
    await store.record(decision(3, message_id=8, picture="attachment:1", state=DELETED))
    await store.forget_user(30)
    await store.record(decision(4, message_id=7, picture="attachment:4", user_id=31, state=DELETED))
    assert await store.drop_forgotten(7) == 0, "they still wait"
    await store.settle(7, DELETED, 5, ["attachment:1"])
    assert await store.drop_forgotten(7) == 1
    assert set(await store.decisions_on(7)) == {"attachment:2", "attachment:4"}


async def test_a_repost_is_found_by_its_message(store: BotStore, other: BotStore, clock: Clock) -> None:
    await store.save_repost(10, 7, 70)
    await store.save_repost(11, 8, 80)
    assert [await other.repost_of(message) for message in (7, 8, 9)] == [70, 80, None]
    await store.forget_guild(10)
    assert [await other.repost_of(message) for message in (7, 8)] == [None, 80]
    clock.time += 31 * DAY
    assert await store.sweep(30) == 1
    assert await other.repost_of(8) is None


async def test_notices_are_of_a_guild_and_a_subject(store: BotStore, other: BotStore) -> None:
    largest = 2**63 - 1
    for guild in (10, largest):
        await store.save_notice(guild, RULES, f"rules of {guild}")
        await store.save_notice(guild, MODLOG, "1")
    assert await other.notice(largest, RULES) == f"rules of {largest}"
    await store.forget_guild(10)
    assert [await other.notice(guild, MODLOG) for guild in (10, largest)] == ["", "1"]


async def test_twenty_thousand_decisions_are_read_without_holding_up_the_event_loop(store: BotStore) -> None:
    every = [decision(number, message_id=number, created_at=1000 + number // 7) for number in range(20_000)]
    for start in range(0, len(every), 500):
        await store.record(*every[start : start + 500])
    bursts: list[float] = []

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            bursts.append(time.thread_time() - last)
            last = time.thread_time()

    gc.collect()
    gc.disable()  # its pauses grow with all that the tests before have imported
    ticking = asyncio.create_task(tick())
    found = await store.decisions(limit=20_000)
    ticking.cancel()
    gc.enable()
    assert [each.id for each in found] == [each.id for each in sorted(every, key=lambda d: (-d.created_at, d.id))]
    # Of the processor's time, which other processes on the machine do not change.
    assert max(bursts) < sum(bursts) / 20, "in one piece, one burst would be nearly all of it"


async def test_the_settings_of_servers_that_the_bot_left_are_deleted_after_the_retention(
    store: BotStore, other: BotStore, clock: Clock
) -> None:
    for guild in (10, 11, 12):
        await store.set_policy(guild, POLICY)
    await store.record(decision(1, guild_id=11))
    assert await store.sweep_guilds(30, [10]) == 0, "left while nothing ran: their time begins now"
    clock.time += 29 * DAY
    assert await store.sweep_guilds(30, [10, 12]) == 0
    clock.time += 2 * DAY
    assert await store.sweep_guilds(30, [10]) == 1
    async with BotStore(other.url.render_as_string(hide_password=False)) as later:
        assert [await later.policy(guild) for guild in (10, 11, 12)] == [POLICY, GuildPolicy(), POLICY]
        assert await later.decisions() == []


async def test_a_verdict_replaces_the_note_that_there_was_none(store: BotStore, other: BotStore) -> None:
    note = decision(1, origin="unjudged", verdict="overloaded", scores={})
    await store.record(note)
    await store.record(replace(note, id=f"{2:032x}", verdict="unreachable"))
    assert (await store.decisions_on(1001))["attachment:1"].verdict == "unreachable"
    await other.record(decision(3, message_id=1001))
    await store.record(replace(note, id=f"{4:032x}"))
    (found,) = await store.decisions()
    assert (found.verdict, found.origin, found.id) == ("flagged", "model", note.id)


async def test_a_moderators_click_is_not_replaced(store: BotStore) -> None:
    await store.record(decision(1, origin="unjudged", verdict="overloaded", state=OPEN))
    await store.settle(1001, APPROVED, 5)
    await store.record(decision(2, message_id=1001))
    assert (await store.decisions_on(1001))["attachment:1"].verdict == "overloaded"


def retry(number: int, **changes: Any) -> Retry:
    values = {"message_id": number, "picture": "attachment:1", "guild_id": 10, "channel_id": 20, "user_id": 30}
    return Retry(**{**values, "tries": 0, "due_at": 5, "created_at": 5, **changes})


async def test_retries_come_in_turn_by_server_and_author(store: BotStore) -> None:
    flood = [retry(number, due_at=1) for number in range(200)]
    others = [retry(1000 + number, user_id=31, due_at=2) for number in range(2)]
    quiet = [retry(2000 + number, guild_id=11, user_id=32, due_at=3) for number in range(2)]
    late = [retry(3000, guild_id=11, user_id=33, due_at=2_000_000)]
    await store.record(*flood, *others, *quiet, *late)
    await store.record(retry(0, due_at=9, tries=7))
    due = await store.due_retries([10, 11])
    assert len(due) == 64
    assert {each.message_id for each in due[:8]} >= {1000, 1001, 2000, 2001}
    assert [each.tries for each in due if each.message_id == 0] == [0], "the first note stays"
    assert {each.guild_id for each in await store.due_retries([11])} == {11}
    await store.postpone(2000, 3, 2_000_000)
    assert await store.drop_retries(2001, ["attachment:1"]) == 1
    assert await store.due_retries([11]) == []
    await store.forget_user(30)
    assert {each.user_id for each in await store.due_retries([10])} == {None, 31}


async def test_jobs_are_kept_until_they_are_reported(store: BotStore, other: BotStore, clock: Clock) -> None:
    job = Job("a" * 32, 10, 20, 1001, 30, PLANNED, 0, 5, {"label": "flagged"}, 5)
    await store.record(decision(1), job)
    assert await other.due_jobs([10]) == [job]
    assert await other.due_jobs([11]) == []
    await store.record(replace(job, state=ACTED, tries=1, due_at=2_000_000))
    assert await store.due_jobs([10]) == []
    clock.time = 3_000_000
    assert [each.tries for each in await store.due_jobs([10])] == [1]
    await store.record(replace(job, state=POSTED))
    await other.record(replace(job, state=ACTED))
    assert await store.due_jobs([10]) == [], "what is reported stays reported"


async def test_positions_only_move_forwards(store: BotStore, other: BotStore) -> None:
    await store.save_positions([(10, 20, 5), (10, 21, 7), (11, 22, 9)])
    await other.save_positions([(10, 20, 6), (10, 21, 3)])
    assert await store.positions(10) == {20: 6, 21: 7}
