"""A database that is locked, full, corrupt or deleted while the bot runs: it goes on, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from room import NOW, Room
from tiny import blue, red

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes for a long time."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


@contextlib.contextmanager
def corrupt(file: Path) -> Iterator[None]:
    """It is overwritten."""
    whole = file.read_bytes()
    with file.open("r+b") as opened:
        opened.write(os.urandom(len(whole)))
    yield
    with file.open("r+b") as opened:
        opened.write(whole)


@contextlib.contextmanager
def deleted(file: Path) -> Iterator[None]:
    """It is gone for good."""
    for each in file.parent.glob("bot.sqlite*"):
        each.unlink()
    yield


async def away(bot: BotProcess) -> dict[str, Any]:
    """What /healthz says once it tells of the database."""
    while True:
        status, text = await bot.get("/healthz")
        if status == 503 and json.loads(text)["store"] == "away":
            return dict(json.loads(text))
        await asyncio.sleep(0.05)


async def test_a_locked_database_stops_nothing_and_loses_nothing(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        with locked(bot.file):
            sent = await room.post(red(1))
            await bot.until(lambda: sent in server.deleted and room.entries)  # by the rules last known
            assert (await away(bot))["store_waiting"] > 0
            for name, options in (("policy show", {}), ("policy set", {"timeout_minutes": 5}), ("exempt list", {})):
                used = await server.slash(name, options, server.owner, room.channel)
                answer = await server.answer(used, NOW)
                assert used.callback is not None
                assert used.callback["type"] == 5, "Discord is told before the database is asked"
                assert answer["content"].startswith("The command failed") == (name == "policy set")
        await bot.healthy()
        await bot.until(lambda: bot.verdicts(sent) == ["flagged"])
        assert len(room.entries) == 1


async def test_the_loss_of_the_file_is_noticed_and_the_rules_stay_in_force(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        with deleted(bot.file):
            sent = await room.post(red(1))
        await bot.until(lambda: sent in server.deleted and room.entries)
        await bot.until(lambda: bot.verdicts(sent) == ["flagged"])
        assert any("was deleted while the bot runs" in line["event"] for line in bot.log())
        assert (await bot.metrics())["mlpy_store_errors"] >= 1
        assert await bot.stopped() == 0
    async with BotProcess(server, tmp_path, *workspace) as bot:  # the rules are in the new file, too
        await bot.connected()
        again = await room.post(red(2))
        await bot.until(lambda: again in server.deleted)


async def test_a_corrupt_database_stops_nothing(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        with corrupt(bot.file):
            sent = await room.post(red(1))
            await bot.until(lambda: sent in server.deleted and room.entries)
            await away(bot)
            kept = await room.post(blue(2))
            await bot.until(lambda: any(line.get("message_id") == kept for line in bot.log()))
        assert len(room.entries) == 1


async def test_a_full_disk_stops_nothing_and_loses_nothing(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    """Full, as SQLite's own limit of pages makes it, for every connection of the process."""
    server = discord_
    full = tmp_path / "full"
    (tmp_path / "sitecustomize.py").write_text(FULL)
    async with BotProcess(server, tmp_path, *workspace, PYTHONPATH=str(tmp_path), MLPY_TEST_FULL=str(full)) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        full.touch()
        sent = await room.post(red(1))
        await bot.until(lambda: sent in server.deleted and room.entries)
        await away(bot)
        assert bot.verdicts(sent) == []
        full.unlink()
        await bot.healthy()
        await bot.until(lambda: bot.verdicts(sent) == ["flagged"])


FULL = """
import os, sqlite3, sys

if sys.orig_argv[1:3] == ["-m", "bot"]:
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        def commit(self):
            if os.path.exists(os.environ["MLPY_TEST_FULL"]) and self.in_transaction:
                self.rollback()
                raise sqlite3.OperationalError("database or disk is full")
            super().commit()

    def connect(*arguments, **options):
        return real(*arguments, **{"factory": Connection} | options)

    sqlite3.connect = connect
"""
