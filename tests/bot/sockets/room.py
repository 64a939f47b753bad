"""A server in the real Discord server's stand-in, and a bot that watches it over real sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from discord_server import DiscordServer

TOKEN = "MTAwMDAwMDAw.AbCdEf.not-to-be-seen-anywhere"
PASSWORD = "hunter2-neither"
VIEW_CHANNEL = 1 << 10
NOW = 1800.0  # seconds that anything may take on a busy machine


@dataclass(frozen=True)
class Room:
    """A guild where red pictures are deleted, by its own settings."""

    server: DiscordServer
    guild: int
    channel: int
    modlog: int

    @classmethod
    async def furnished(cls, server: DiscordServer, guild: int | None = None) -> Room:
        guild = server.add_guild() if guild is None else guild
        channel = next(iter(server.guilds[guild]["channels"]))
        hidden = [{"id": str(guild), "type": 0, "allow": "0", "deny": str(VIEW_CHANNEL)}]
        room = cls(server, guild, channel, server.add_channel(guild, "mod-log", permission_overwrites=hidden))
        await room.command("channel modlog", channel=room.modlog)
        await room.command("threshold", label="flagged", action="delete", score=0.9)
        assert "**Mode** enforce" in await room.command("policy set", mode="enforce")
        return room

    async def command(self, name: str, **options: Any) -> str:
        """What the bot answers to its manager."""
        used = await self.server.slash(name, options, self.server.owner, self.channel)
        return str((await self.server.answer(used, NOW))["content"])

    async def post(self, *pictures: bytes | tuple[str, bytes]) -> int:
        return await self.server.post(self.channel, self.server.user, "look", pictures)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What moderators are shown."""
        return self.server.posted(self.modlog)
