"""A wave under Discord's rate limits: every copy is deleted, each author timed out and told of once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from room import Room
from tiny import blue

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_copy_of_a_wave_is_deleted_under_discords_limits(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        await room.command("shield set", on=True)
        rooms = [room.channel, *(server.add_channel(server.guild, f"room-{number}") for number in range(5))]
        accounts = [server.add_member(server.guild, f"hijacked-{number}") for number in range(12)]
        harmless = await server.post(rooms[0], server.user, "", [blue(9)])
        server.limited = True

        async def attack(account: int) -> list[int]:
            return [await server.post(each, account, "free nitro", [("win.png", blue(1))]) for each in rooms]

        sent = {message for messages in await asyncio.gather(*map(attack, accounts)) for message in messages}
        await bot.until(lambda: sent <= server.deleted.keys())
        await bot.until(lambda: len(room.entries) == len(accounts))
        members = server.guilds[server.guild]["members"]
        assert all(members[account]["communication_disabled_until"] for account in accounts)
        assert harmless in server.messages
        assert not members[server.user]["communication_disabled_until"]
        bulk = server.counts["POST /channels/{channel}/messages/bulk-delete 204"]
        single = server.counts["DELETE /channels/{channel}/messages/{message} 204"]
        assert bulk + single < len(sent), "several messages of a channel go in one request"
        titles = {entry["embeds"][0]["title"] for entry in room.entries}
        assert titles == {"Wave: 6 messages in 6 channels"}
