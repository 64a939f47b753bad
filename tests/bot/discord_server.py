"""A small Discord for tests, over real sockets: `async with DiscordServer() as server`, and what a user does there.

It speaks the HTTP API, the gateway and the CDN on one port of 127.0.0.1 to an unmodified client, which `server.point`
(or `server.api` and `server.gateway`, in another process) leads here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import discord
import yarl
from aiohttp import web
from discord_http import API
from discord_interactions import Interaction, Interactions
from discord_state import Json
from waiting import until

__all__ = ["DiscordServer", "Interaction"]

Picture = bytes | tuple[str, bytes]


class DiscordServer(Interactions):
    """The server, and the hands of its users.

    Args:
        guilds: How many guilds to begin with, each with a channel, its owner (`server.owner`), one member
            (`server.user`) and the bot (`server.bot`); `server.guild` and `server.channel` are the first ones.
        shards: What GET /gateway/bot recommends.
        permissions: What the bot's role may do.
        privileged: Whether the application has the privileged intents.
        heartbeat: Seconds between the client's heartbeats; after twice as long a silence it is cut off (`silent`).
        keep: False keeps only the latest `window` messages, pictures and requests, and counts all (`counts`).
        memory: How many events a session keeps for a RESUME.
        limited: Whether it has Discord's rate limits: of each route by channel or guild, and of all requests.
        token: The bot's token.
        bot: The bot's name.
    """

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.host_port = "{}:{}".format(*self._runner.addresses[0])
        self.cdn, self.api = f"http://{self.host_port}", f"http://{self.host_port}{API}"
        self.gateway, self.resume_gateway = f"ws://{self.host_port}/gateway", f"ws://{self.host_port}/resume"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop(1001)
        await self._runner.cleanup()

    def point(self, patch: Any) -> None:
        """Lead this process's client here, by pytest's monkeypatch (which undoes it)."""
        patch.setattr(discord.http.Route, "BASE", self.api)
        patch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(self.gateway))

    # What users do.

    async def post(
        self,
        channel: int,
        author: int,
        content: str = "",
        pictures: list[Picture] | tuple[Picture, ...] = (),
        **more: Any,
    ) -> int:
        """A user writes a message; returns its id.

        Pictures are bytes or (name, bytes); `more` goes into the message as it is.
        """
        attachments = []
        for picture in pictures:
            name, data = (None, picture) if isinstance(picture, bytes) else picture
            attachments.append(self.store(channel, data, name))
        parts = {"nonce": str(self.snowflake()), "attachments": attachments} | more
        if "message_reference" in more and "type" not in more:
            forwarded = more["message_reference"].get("type") == 1
            parts["type"] = 0 if forwarded else 19
        made = self.message(channel, author, content, **parts)
        await asyncio.sleep(0)  # so that a loop of posts lets the sockets work
        return int(made["id"])

    async def until(self, true: Callable[[], Any], seconds: float = 1800.0) -> None:
        """Wait for something to come true; `seconds` only ends a test that hangs."""
        await until(true, seconds)

    # What the bot did.

    def posted(self, channel: int | None = None) -> list[Json]:
        """The bot's messages that are still there, oldest first."""
        return [
            message
            for message in self.messages.values()
            if message["author"]["id"] == str(self.bot) and channel in (None, int(message["channel_id"]))
        ]

    def asked(self, method: str, path: str) -> list[int]:
        """The statuses that the requests of this method and path got."""
        return [status for *line, status in self.requests if line == [method, path]]
