"""A database of an older bot is upgraded with all that is in it; a newer one's is left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from databases import Place
from rows import decision

from bot.rules.policy import Action, Mode
from bot.storage import database, migrations
from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import SCHEMA, metadata


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(place: Place, version: int) -> Place:
    """A database of an older bot, with a row in each table."""
    for statement in Path(__file__).with_name(f"schema_{version}.sql").read_text().split(";\n"):
        if statement.strip():
            place.sql(statement)
    return place


async def test_an_older_database_is_upgraded_with_its_rows(old: Place) -> None:
    async with BotStore(old.url) as store:
        assert await store.get("schema") == str(SCHEMA)
        assert await store.get("commands") == "a digest"
        policy = await store.policy(10)
        assert (policy.mode, policy.modlog) == (Mode.ENFORCE, 7)
        assert policy.rules is not None
        assert [(rule.label, rule.action, rule.ping) for rule in policy.rules] == [("flagged", Action.DELETE, True)]
        by_message = {row.message_id: row for row in await store.decisions()}
        assert [by_message[number].verdict for number in (1001, 1002)] == ["overloaded", "flagged"]
        assert by_message[1002].phash == 2**64 - 5
        (ruling,) = await store.rulings(10)
        assert (ruling.phash, ruling.allowed, ruling.fingerprint, ruling.met) == (2**64 - 5, False, None, 0)
        assert await store.find_scores("00", "mmmm")
        await store.count_meeting(10, "00")
        assert [each.met for each in await store.rulings(10)] == [1]
        assert await store.settle(1002, "approved", 5)
        # The new rules hold for the old rows, too: a verdict replaces the note that there was none.
        await store.record(decision(1, picture="attachment:1"))
        assert (await store.decisions_on(1001))["attachment:1"].verdict == "flagged"
        await store.save_positions([(10, 20, 1002)])
        assert await store.positions(10) == {20: 1002}


async def test_an_upgraded_database_has_every_table_and_column_of_a_new_one(old: Place) -> None:
    async with BotStore(old.url):
        pass
    for table in metadata.sorted_tables:
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        old.sql(f"SELECT {columns} FROM {table.name}")


async def test_several_processes_may_upgrade_at_once(old: Place) -> None:
    async def opened() -> str | None:
        async with BotStore(old.url) as store:
            return await store.get("schema")

    assert await asyncio.gather(*(opened() for _ in range(4))) == [str(SCHEMA)] * 4


async def test_the_steps_of_all_versions_between_run_once_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BotStore(place.url):
        pass
    steps = {
        **migrations.STEPS,
        SCHEMA: ("ALTER TABLE scores ADD COLUMN extra BIGINT",),
        SCHEMA + 1: ("UPDATE scores SET extra = 1", "INSERT INTO meta VALUES ('upgraded', 'once')"),
    }
    monkeypatch.setattr(migrations, "STEPS", steps)
    monkeypatch.setattr(database, "SCHEMA", SCHEMA + 2)
    for _ in range(2):
        async with BotStore(place.url) as store:
            assert await store.get("schema") == str(SCHEMA + 2)
    place.sql("SELECT extra FROM scores")
    assert place.sql("SELECT value FROM meta WHERE key = 'upgraded'") == [("once",)]


async def test_a_failed_step_changes_nothing(old: Place, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        migrations.STEPS, version, ("INSERT INTO meta VALUES ('half', 'done')", "ALTER TABLE nothing ADD a INT")
    )
    with pytest.raises(StoreError, match="cannot be opened"):
        async with BotStore(old.url):
            pass
    assert sorted(old.sql("SELECT key, value FROM meta")) == [("commands", "a digest"), ("schema", str(version))]


@pytest.mark.parametrize("unknown", ["0", "-1", str(SCHEMA + 1), "newer"])
@pytest.mark.parametrize("version", [1], indirect=True)
async def test_an_unknown_version_is_left_alone(old: Place, unknown: str) -> None:
    old.sql(f"UPDATE meta SET value = '{unknown}' WHERE key = 'schema'")
    with pytest.raises(StoreError, match=f"has schema version {unknown}, this bot needs {SCHEMA}"):
        async with BotStore(old.url):
            pass
    assert ("schema", unknown) in old.sql("SELECT key, value FROM meta")
    with pytest.raises(Exception, match="outbox"):
        old.sql("SELECT * FROM outbox")
