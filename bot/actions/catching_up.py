"""Checking what was posted while the bot was away: from each channel's last position on, within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, missing_permissions
from bot.actions.moderation import Moderation
from bot.actions.positions import Positions
from bot.services import Services
from bot.storage.database import StoreError

log = logging.getLogger(__name__)

MAX_MESSAGES = 1_000
"""Messages of a channel that are caught up at a time, oldest first."""
MAX_AGE = 7 * 86400
"""Seconds; what was posted longer ago is not looked at."""
GUILDS_AT_ONCE = 4

Channel = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


class CatchUp:
    """Keeps the channels' positions, and fills the gaps that pauses leave."""

    def __init__(self, services: Services, moderation: Moderation) -> None:
        self._services = services
        self._moderation = moderation
        self._positions = Positions()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._limit = asyncio.Semaphore(GUILDS_AT_ONCE)

    def checking(self, message: discord.Message) -> AbstractContextManager[None]:
        """While a message is checked; a channel's position passes it only then."""
        return self._positions.checking(message.guild.id if message.guild else 0, message.channel.id, message.id)

    def forget_session(self, shard: int, shard_count: int) -> None:
        """A shard has a new session: messages of before it may be missing."""
        self._positions.forget_session(lambda guild: (guild >> 22) % shard_count == shard)

    def start(self, guild: discord.Guild) -> None:
        """Look for gaps in a server's channels, and fill them in a task."""
        if task := self._tasks.pop(guild.id, None):
            task.cancel()
        if not self._moderation.stopping:
            self._tasks[guild.id] = asyncio.create_task(self._catch_up(guild))

    def resume(self, guilds: list[discord.Guild]) -> None:
        """Try again where Discord or the database did not answer."""
        for guild in guilds:
            task = self._tasks.get(guild.id)
            unfinished = not self._positions.is_known(guild.id) or self._positions.gaps(guild.id)
            if unfinished and not guild.unavailable and (task is None or task.done()):
                self.start(guild)

    async def save(self) -> None:
        """Store the positions that changed."""
        if changed := self._positions.take_changed():
            await self._services.store.save_positions(changed)

    async def stop(self) -> None:
        """End all tasks, and store how far they came."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.save()

    async def _catch_up(self, guild: discord.Guild) -> None:
        try:
            await self._find_gaps(guild)
            async with self._limit:
                channels = {channel.id: channel for channel in _channels(guild)}
                for channel_id, start in self._positions.gaps(guild.id).items():
                    if channel_id in channels:
                        await self._fill(channels[channel_id], start)
                    else:  # deleted
                        self._positions.close_gap(channel_id)
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
        except DISCORD_ERRORS as error:
            self._services.metrics.errors.labels("catch-up").inc()
            log.warning("could not catch up: %s", describe_error(error), extra={"guild_id": guild.id})
        except Exception:
            self._services.metrics.errors.labels("catch-up").inc()
            log.exception("could not catch up", extra={"guild_id": guild.id})

    async def _find_gaps(self, guild: discord.Guild) -> None:
        """Compare the stored positions with the newest messages, and store those of new channels."""
        if self._positions.is_known(guild.id):
            return
        starts = {**await self._services.store.positions(guild.id), **self._positions.gaps(guild.id)}
        gaps, others = {}, {}
        for channel in _channels(guild):
            newest, start = channel.last_message_id or 0, starts.get(channel.id)
            # A channel that nobody ever looked at has no gap: the bot may just have joined.
            if start is not None and newest > start:
                gaps[channel.id] = start
            else:
                others[channel.id] = max(newest, channel.id)  # no message is older than its channel
        self._positions.begin(guild.id, gaps, others)
        await self.save()

    async def _fill(self, channel: Channel, start: int) -> None:
        """Check a channel's missed messages one after the other, so that new ones take precedence."""
        recovered = self._services.metrics.recovered
        if missing_permissions(channel, view_channel=True, read_message_history=True):
            recovered.labels("message", "unreadable").inc()
            self._positions.close_gap(channel.id)
            return
        oldest = discord.utils.time_snowflake(datetime.fromtimestamp(time.time() - MAX_AGE, UTC))
        count = 0
        async for message in channel.history(
            limit=MAX_MESSAGES, after=discord.Object(max(start, oldest)), oldest_first=True
        ):
            if self._moderation.stopping:
                return
            with self.checking(message):
                await self._moderation.check(message, again=True)
            self._positions.shrink_gap(channel.id, message.id)
            recovered.labels("message", "checked").inc()
            count += 1
        ids = {"guild_id": channel.guild.id, "channel_id": channel.id, "messages": count}
        if count < MAX_MESSAGES:
            self._positions.close_gap(channel.id)
            log.info("caught up with a channel", extra=ids)
        else:  # the next round goes on from here, after the other channels
            log.warning("caught up with a part of a channel", extra=ids)


def _channels(guild: discord.Guild) -> Iterator[Channel]:
    """All that may hold messages."""
    yield from guild.text_channels
    yield from guild.voice_channels
    yield from guild.stage_channels
    yield from guild.threads
