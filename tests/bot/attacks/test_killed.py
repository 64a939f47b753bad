"""kill -9 between a post and its mod-log entry, and a stop while Discord limits the mod-log: done once, told once."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from room import TOKEN, Room
from tiny import blue, red

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

KILLING = Path(__file__).with_name("killing")
MOMENTS, SEED = {"delete": 10, "spoiler": 10, "timeout": 4, "wave": 3}, 16
"""Moments of each action, and what they are drawn by; without one, after the last."""


async def killed(
    server: DiscordServer, room: Room, workspace: tuple[str, ...], folder: Path, at: int
) -> tuple[list[int], list[str]]:
    """Post a bad and a good picture, and kill the bot at that moment. Their ids, and the moments that came."""
    armed = folder / "armed"
    variables = {"PYTHONPATH": str(KILLING), "MLPY_TEST_ARMED": str(armed), "MLPY_TEST_KILL_AT": str(at)}
    async with BotProcess(server, folder, *workspace, **variables) as bot:
        await bot.healthy()
        await bot.until(lambda: bot.rows("SELECT 1 FROM channels WHERE channel_id = ?", room.channel))
        armed.touch()
        sent = [await room.post(red(at)), await room.post(blue(at))]
        if at:
            await bot.stopped(None)
        else:
            await bot.until(lambda: all(map(bot.verdicts, sent)) and room.entries and finished(bot))
        return sent, armed.read_text().splitlines()


def finished(bot: BotProcess) -> bool:
    states = [state for (state,) in bot.rows("SELECT state FROM outbox")]
    return bool(states) and set(states) == {"posted"}


async def furnished(server: DiscordServer, workspace: tuple[str, ...], folder: Path, action: str) -> Room:
    """A server where red pictures are acted on; the bot is stopped."""
    async with BotProcess(server, folder, *workspace) as bot:
        await bot.connected()
        room = await Room.furnished(server, server.guild)
        if action != "delete":
            await room.command("policy set", mode="review")  # in enforce mode, a rule takes a confirmation
            await room.command("threshold", label="flagged", action=action, score=0.9)
            await room.command("threshold", label="flagged", action="delete")
            await room.command("policy set", mode="enforce")
        assert await bot.stopped() == 0
    return room


async def recovered(
    server: DiscordServer, room: Room, workspace: tuple[str, ...], folder: Path, sent: list[int], entries: int
) -> list[Any]:
    """Start the bot again, and wait until nothing is left to do. State and action of the bad picture's decision."""
    async with BotProcess(server, folder, *workspace) as bot:
        await bot.healthy()  # nothing may be left to do, and a stop before it listens to signals is no stop
        await bot.until(lambda: all(map(bot.verdicts, sent)) and len(room.entries) >= entries and finished(bot))
        assert [bot.verdicts(message) for message in sent] == [["flagged"], ["clean"]]
        row = bot.rows("SELECT state, done FROM decisions WHERE message_id = ?", sent[0])
        assert await bot.stopped() == 0
    return row


def drawn(moments: list[str], action: str) -> list[int]:
    """Some of the moments of an action, in their order."""
    return sorted(random.Random(SEED).sample(range(1, len(moments) + 1), min(MOMENTS[action], len(moments))))


@pytest.mark.parametrize(("action", "done"), [("delete", 3), ("spoiler", 2), ("timeout", 4)])
async def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path, action: str, done: int
) -> None:
    server = discord_
    room = await furnished(server, workspace, tmp_path, action)
    _, moments = await killed(server, room, workspace, tmp_path, 0)
    author = server.guilds[room.guild]["members"][server.user]
    assert bool(author["communication_disabled_until"]) == (action == "timeout")
    for number, at in enumerate(drawn(moments, action), 2):
        (tmp_path / "armed").unlink()
        author["communication_disabled_until"] = None
        sent, came = await killed(server, room, workspace, tmp_path, at)
        assert len(came) >= at, "it was killed there"
        assert await recovered(server, room, workspace, tmp_path, sent, number) == [("open", done)], came
        assert len(room.entries) == number, f"an entry a message, after {came}"
        assert sent[0] in server.deleted
        assert sent[1] in server.messages
        assert bool(author["communication_disabled_until"]) == (action == "timeout"), came
        reposts = [message for message in server.posted(room.channel) if "posted (" in message["content"]]
        assert len(reposts) == (number if action == "spoiler" else 0), came
    marks = [entry["embeds"][0]["footer"]["text"] for entry in room.entries]
    assert len(set(marks)) == len(marks)


async def test_a_kill_during_a_wave_leaves_no_copy_and_one_entry(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    rooms = [server.channel, *(server.add_channel(server.guild, f"room-{number}") for number in range(2))]
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.connected()
        room = await Room.furnished(server, server.guild)
        await room.command("shield set", on=True)
        assert await bot.stopped() == 0
    _, moments = await killed_in_wave(server, room, rooms, workspace, tmp_path, 0)
    for number, at in enumerate(drawn(moments, "wave"), 2):
        (tmp_path / "armed").unlink()
        author, came = await killed_in_wave(server, room, rooms, workspace, tmp_path, at)
        assert len(came) >= at, "it was killed there"
        async with BotProcess(server, tmp_path, *workspace) as bot:
            await bot.healthy()
            await until_told(bot, room, number)
            assert await bot.stopped() == 0
        assert len(room.entries) == number, came
        assert room.entries[-1]["embeds"][0]["title"] == "Wave: 3 messages in 3 channels", came
        left = [each for each in server.messages.values() if each["author"]["id"] == str(author)]
        assert not left, came
        assert server.guilds[server.guild]["members"][author]["communication_disabled_until"], came


async def killed_in_wave(
    server: DiscordServer, room: Room, rooms: list[int], workspace: tuple[str, ...], folder: Path, at: int
) -> tuple[int, list[str]]:
    """A new member posts a picture everywhere, and the bot is killed at that moment. Its id, and the moments."""
    armed = folder / "armed"
    author = server.add_member(server.guild, f"hijacked-{at}")
    variables = {"PYTHONPATH": str(KILLING), "MLPY_TEST_ARMED": str(armed), "MLPY_TEST_KILL_AT": str(at)}
    async with BotProcess(server, folder, *workspace, **variables) as bot:
        await bot.healthy()
        await bot.until(lambda: {each for (each,) in bot.rows("SELECT channel_id FROM channels")} >= set(rooms))
        armed.touch()
        for each in rooms:
            await server.post(each, author, "", [("win.png", blue(at))])
        if at:
            await bot.stopped(None)
        else:
            await until_told(bot, room, 1)
            assert await bot.stopped() == 0
    return author, armed.read_text().splitlines()


async def until_told(bot: BotProcess, room: Room, entries: int) -> None:
    await bot.until(lambda: len(room.entries) >= entries and finished(bot))


async def test_a_stop_while_discord_limits_the_modlog_posts_the_entry_later(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, "--grace", "0.5", *workspace) as bot:
        await bot.connected()
        room = await Room.furnished(server, server.guild)
        limited = server.fail("POST", f"/channels/{room.modlog}/messages", 429, times=1, retry_after=600)
        sent = await room.post(red(1))
        await bot.until(lambda: not limited["times"])
        assert await bot.stopped(signal.SIGTERM) == 0
        assert sent in server.deleted
        assert not room.entries
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.until(lambda: room.entries and finished(bot))
        assert len(room.entries) == 1
        assert bot.verdicts(sent) == ["flagged"]


async def test_an_entry_that_discord_refuses_for_a_while_is_posted_once(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.connected()
        room = await Room.furnished(server, server.guild)
        path = f"/channels/{room.modlog}/messages"
        server.fail("POST", path, 503, times=3, after=True)  # it is there, and no answer says so
        await room.post(red(1))
        await bot.until(lambda: room.entries and finished(bot))
        assert len(room.entries) == 1
        assert server.asked("POST", path) == [503] * 3, "it was found there"
    assert TOKEN not in bot.text()
