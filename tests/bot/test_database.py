"""Databases that cannot be opened, that go away, hang or refuse: nothing is lost, no secret told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from databases import Place, Postgres, SqlitePlace
from rows import decision, ruling, scored
from waiting import until

from bot.rules.policy import GuildPolicy
from bot.storage import database
from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import OPEN, SCHEMA, Decision
from stages.workspace.errors import MLpyError

SECRET = "hunter2"


@pytest.fixture
async def store(place: Place) -> AsyncIterator[BotStore]:
    async with BotStore(place.url) as store:
        yield store


async def kept(place: Place) -> list[int]:
    """What a new process finds: the decisions' messages, oldest first."""
    async with BotStore(place.url) as later:
        return [each.message_id for each in (await later.decisions())[::-1]]


async def cannot_be_opened(url: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError, match=message) as caught:
        async with BotStore(url):
            pass
    assert isinstance(caught.value, MLpyError)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert SECRET not in text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "MLPY_BOT_DATABASE is not a SQLAlchemy URL"),
        (SECRET, "MLPY_BOT_DATABASE is not a SQLAlchemy URL"),
        (f"postgresql://bot:{SECRET}@db:port/bot", "MLPY_BOT_DATABASE is not a SQLAlchemy URL"),
        (f"postgresql://bot@db:{SECRET}/bot", "MLPY_BOT_DATABASE is not a SQLAlchemy URL"),
        (f"postgresql://bot:{SECRET}@[::1/bot", "MLPY_BOT_DATABASE is not a SQLAlchemy URL"),
        (f"mysql://bot:{SECRET}@db/bot", "MLPY_BOT_DATABASE names mysql; use SQLite or PostgreSQL"),
        (f"oracle+nothing://bot:{SECRET}@db/bot", "MLPY_BOT_DATABASE names oracle"),
        (f"nothing://bot:{SECRET}@db/bot", "MLPY_BOT_DATABASE names nothing"),
        (f"postgresql://bot:{SECRET}@127.0.0.1:1/bot", r"bot:\*\*\*@127.0.0.1:1/bot cannot be opened \(ConnectionRef"),
        (f"postgres://bot:{SECRET}@127.0.0.1:1/bot", "ConnectionRefusedError"),
        (f"postgresql+psycopg2://bot:{SECRET}@127.0.0.1:1/bot?sslmode=require", "ConnectionRefusedError"),
        (f"postgresql://127.0.0.1:1/bot?user=bot&password={SECRET}", "ConnectionRefusedError"),
        (f"postgresql://bot:{SECRET}@nowhere.invalid/bot", "gaierror"),
        (f"postgresql://bot:{SECRET}@127.0.0.1:1/bot?nonsense=1", "TypeError: .*'nonsense'.*check MLPY_BOT_DATABASE"),
        ("sqlite:////nowhere/at/all/bot.sqlite", "unable to open database file"),
        ("sqlite:////", "unable to open database file"),
    ],
)
async def test_an_invalid_database_is_refused_in_one_sentence(
    url: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    await cannot_be_opened(url, message, caplog)


async def test_a_file_of_another_kind_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" + bytes(5000))
    await cannot_be_opened(f"sqlite:///{tmp_path / 'picture.png'}", "file is not a database", caplog)


async def test_postgres_refuses_unknown_users(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    postgres.locked("guarded", f"{SECRET}/@ö")
    async with BotStore(
        postgres.url(user="guarded", password=f"{SECRET}%2F%40%C3%B6", options="&sslmode=disable")
    ) as store:
        assert await store.get("schema") == str(SCHEMA)
    wrong = postgres.url(user="guarded", password=f"{SECRET}?")
    await cannot_be_opened(wrong.replace("?@", "@"), "password authentication failed", caplog)
    await cannot_be_opened(postgres.url("absent", password=SECRET), 'database "absent" does not exist', caplog)
    await cannot_be_opened(postgres.url(user="absent", password=SECRET), 'role "absent" does not exist', caplog)


async def test_several_processes_may_make_the_tables_at_once(place: Place) -> None:
    stores = [BotStore(place.url) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, stores))
        await asyncio.gather(*(each.record(decision(number)) for number, each in enumerate(stores)))
        assert [len(await each.decisions()) for each in stores] == [5] * 5


async def test_two_processes_write_as_fast_as_they_can(place: Place, store: BotStore) -> None:
    async with BotStore(place.url) as other:
        await asyncio.gather(*((store, other)[number % 2].record(decision(number)) for number in range(60)))
        assert (store.waiting, other.waiting) == (0, 0)
    assert len(await kept(place)) == 60


async def refusals(store: BotStore) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: store.policy(99),
        lambda: store.set_policy(10, GuildPolicy(modlog=2)),
        lambda: store.decisions(),
        lambda: store.settle(1001, "deleted", 1),
        lambda: store.reopen(1001, "deleted"),
        lambda: store.rulings(10),
        lambda: store.save_ruling(ruling()),
        lambda: store.sweep(1),
        lambda: store.forget_user(30),
        lambda: store.forget_guild(11),
        lambda: store.get("a"),
        lambda: store.put("a", "b"),
    ]


async def test_an_outage_loses_no_row(place: Place, store: BotStore) -> None:
    policy = GuildPolicy(modlog=1)
    await store.set_policy(10, policy)
    await store.record(decision(1, state=OPEN))
    place.away()
    for number in range(2, 7):
        await store.record(decision(number))
    await store.record(decision(9, message_id=1001))
    await store.save_scores(scored(1))
    assert store.waiting == 7
    assert not await store.flush()
    errors = store.errors
    for ask in await refusals(store):
        with pytest.raises(StoreError, match="the database does not answer"):
            await ask()
    assert store.errors > errors
    assert await store.policy(10) == policy, "it is at hand, and was not changed"
    assert await store.decisions_on(1001) == {}
    assert await store.find_scores("0" * 64, "m") is None
    assert await store.find_scores(scored(1).sha256, "m" * 32) == scored(1), "it is at hand"
    place.back()
    assert await store.flush()
    assert store.waiting == 0
    assert await kept(place) == [1001, 1002, 1003, 1004, 1005, 1006]
    assert await store.settle(1001, "deleted", 1)
    async with BotStore(place.url) as later:
        assert await later.find_scores(scored(1).sha256, "m" * 32)


async def test_the_first_call_after_an_outage_writes_the_backlog(place: Place, store: BotStore) -> None:
    for ask in (
        lambda: store.record(decision(3)),
        lambda: store.decisions(),
        lambda: store.settle(1, "deleted", 1),
        lambda: store.forget_user(1),
    ):
        place.away()
        await asyncio.gather(*(store.record(decision(number)) for number in (1, 2)))
        place.back()
        await ask()
        assert store.waiting == 0
        assert {1001, 1002} <= set(await kept(place))
        place.sql("DELETE FROM decisions")


async def test_a_guild_left_during_an_outage_is_forgotten(place: Place, store: BotStore) -> None:
    place.away()
    await store.record(decision(1))
    place.back()
    await store.forget_guild(10)
    assert (await store.flush(), await kept(place)) == (True, [])


async def test_of_too_many_rows_the_oldest_are_logged(
    place: Place, store: BotStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "MAX_BACKLOG", 5)
    place.away()
    for number in range(8):
        await store.record(decision(number))
    assert store.waiting == 5
    place.back()
    assert await store.flush()
    assert await kept(place) == [1003, 1004, 1005, 1006, 1007]
    lost = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert [f"'message_id': {1000 + number}" in line for number, line in enumerate(lost)] == [True] * 3


async def test_rows_lost_at_a_stop_are_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with BotStore(place.url) as store:
        place.away()
        await store.record(decision(1))
    place.back()
    lost = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(lost) == 1
    assert "'message_id': 1001" in lost[0]


@pytest.mark.parametrize(
    "bad",
    [
        decision(2, scores={"flagged": float("nan")}),
        decision(2, model="x" * 200),
        decision(2, detail="a\0b"),
        decision(2, detail="\ud800"),
        decision(2, user_id=2**64),
        decision(2, scores={"flagged": object()}),  # type: ignore[dict-item]
    ],
    ids=["not a number", "too long", "a zero byte", "half a character", "too large", "no JSON"],
)
async def test_a_rejected_row_does_not_block_the_others(
    place: Place, store: BotStore, bad: Decision, caplog: pytest.LogCaptureFixture
) -> None:
    place.away()
    for each in (decision(1), bad, decision(3)):
        await store.record(each)
    place.back()
    assert await store.flush()
    assert store.waiting == 0
    stored = [number for (number,) in place.sql("SELECT message_id FROM decisions ORDER BY message_id")]
    assert {1001, 1003} <= set(stored)
    assert 1002 in stored or "a row was lost because the database rejects it" in caplog.text


async def test_killed_sessions_are_replaced(postgres: Postgres) -> None:
    place = postgres.new()
    async with BotStore(place.url) as store:
        await asyncio.gather(*(store.record(decision(number)) for number in range(5)))
        await asyncio.gather(*(store.get("schema") for _ in range(5)))
        place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await store.record(decision(9))
        assert (len(await store.decisions()), store.waiting, store.errors) == (6, 0, 0)


async def test_a_hanging_server_blocks_nobody(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "TIMEOUT", 0.3)
    place = postgres.new()
    async with BotStore(place.url) as store:
        await asyncio.gather(*(store.get("schema") for _ in range(4)))
        with postgres.hung():
            async with asyncio.timeout(1800):  # without limits of its own it would wait for ever
                await asyncio.gather(*(store.record(decision(number)) for number in range(30)))
                asked = await asyncio.gather(*(store.get("schema") for _ in range(30)), return_exceptions=True)
            assert {type(each) for each in asked} == {StoreError}
            assert store.waiting == 30
        async with asyncio.timeout(1800):
            while not await store.flush():
                pass
    assert len(await kept(place)) == 30


async def test_cancelling_a_write_loses_no_row(postgres: Postgres) -> None:
    place = postgres.new()
    async with BotStore(place.url) as store:
        await store.get("schema")
        with postgres.hung():
            tasks = [asyncio.create_task(store.record(decision(number))) for number in range(3)]
            await until(lambda: store.waiting == 3 and store._write_lock.locked())
            tasks[0].cancel()
            await asyncio.sleep(0.1)
            assert store.waiting == 3
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await store.flush()
    assert await kept(place) == [1000, 1001, 1002]


async def test_sqlite_waits_for_another_process_to_finish_writing(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "bot.sqlite")
    async with BotStore(place.url) as store:
        lock = sqlite3.connect(place.file, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.3, lambda: (lock.execute("COMMIT"), lock.close())).start()
        await asyncio.gather(
            *(store.record(decision(number)) for number in range(3)), store.set_policy(1, GuildPolicy())
        )
        assert (store.waiting, store.errors) == (0, 0)
    assert len(await kept(place)) == 3
