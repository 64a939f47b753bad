"""No commands: what the bot notices by itself and tells moderators, or its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import discord
from discord.ext import commands

from bot.actions.telling import Teller
from bot.pictures.carriers import CarrierWatch
from bot.services import Services
from bot.storage.database import StoreError

log = logging.getLogger(__name__)

MESSAGE_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE")
FETCHERS = ("logs_from", "get_message")
"""Methods of discord.py's HTTP client that fetch messages: a channel's history, or one."""


class Watching(commands.Cog):
    """Watches for a lost mod-log, rules that a new model does not know, and unknown carriers of pictures."""

    def __init__(self, bot: commands.AutoShardedBot, services: Services, teller: Teller) -> None:
        self._bot = bot
        self._services = services
        self._teller = teller
        self._carriers = CarrierWatch(services.metrics.errors.labels("unknown carrier").inc)
        self._parsers: dict[str, Callable[[Any], None]] = {}
        self._fetchers: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def cog_load(self) -> None:
        """Listen to model switches, and look at messages before discord.py drops what it does not know."""
        self._loop = asyncio.get_running_loop()
        self._services.serving.listeners.append(self._on_switch)
        parsers = self._bot._connection.parsers
        for event in MESSAGE_EVENTS:
            self._parsers[event] = parsers[event]
            parsers[event] = self._watched(parsers[event])
        http = self._bot.http
        for name in FETCHERS:
            self._fetchers[name] = getattr(http, name)
            setattr(http, name, self._watched_fetch(self._fetchers[name]))

    async def cog_unload(self) -> None:
        """Undo `cog_load`."""
        self._services.serving.listeners.remove(self._on_switch)
        self._bot._connection.parsers.update(self._parsers)
        for name, fetch in self._fetchers.items():
            setattr(self._bot.http, name, fetch)

    def _watched(self, parse: Callable[[Any], None]) -> Callable[[Any], None]:
        def parse_and_look(data: Any) -> None:
            self._look(data)
            parse(data)

        return parse_and_look

    def _watched_fetch(self, fetch: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def fetch_and_look(*args: Any, **kwargs: Any) -> Any:
            data = await fetch(*args, **kwargs)
            for message in data if isinstance(data, list) else [data]:
                self._look(message)
            return data

        return fetch_and_look

    def _look(self, message: Any) -> None:
        try:
            self._carriers.look(message)
        except Exception:  # whatever Discord sends, the message itself must be parsed
            self._services.metrics.errors.labels("unknown carrier").inc()
            log.exception("could not look for unknown carriers")

    def _on_switch(self) -> None:
        """A new model serves: called in any thread."""
        self._loop.call_soon_threadsafe(self._bot.dispatch, "model_switch")

    async def _check_guilds(self) -> None:
        for guild in list(self._bot.guilds):
            try:
                policy = await self._services.store.policy(guild.id)
                await self._teller.check_rules(guild, policy)
                await self._teller.check_modlog(guild, policy)
            except StoreError:
                self._services.metrics.errors.labels("store").inc()
            except Exception:  # one server must not keep the others from being told
                log.exception("could not check a server's settings", extra={"guild_id": guild.id})

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """The model or the mod-log may have changed while the bot was down."""
        await self._check_guilds()

    @commands.Cog.listener()
    async def on_model_switch(self) -> None:
        """The new model may have other labels."""
        await self._check_guilds()

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """The mod-log may be gone."""
        await self._check_modlog(channel)

    @commands.Cog.listener()
    async def on_guild_channel_update(self, _before: discord.abc.GuildChannel, after: discord.abc.GuildChannel) -> None:
        """The mod-log may be hidden from the bot."""
        await self._check_modlog(after)

    async def _check_modlog(self, channel: discord.abc.GuildChannel) -> None:
        try:
            policy = await self._services.store.policy(channel.guild.id)
        except StoreError:
            return  # the next match tells
        if channel.id == policy.modlog:
            await self._teller.check_modlog(channel.guild, policy)
