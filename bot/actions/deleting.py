"""Deleting many messages fast: channels side by side, and several messages of one channel in one request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, missing_permissions, retry

BULK = 100
"""Messages that Discord deletes in one request, at most; at least two."""
BULK_AGE = timedelta(days=13)
"""Discord refuses to delete messages of over 14 days together with others."""
REASON_LENGTH = 512
"""Characters of a reason in Discord's audit log."""


@dataclass
class _Waiting:
    reason: str
    futures: list[asyncio.Future[str]] = field(default_factory=list)


class Deleter:
    """Deletes messages of any channel. Discord limits each channel by itself, so what waits there goes together."""

    def __init__(self, client: discord.Client) -> None:
        self._client = client
        self._channels: dict[int, OrderedDict[int, _Waiting]] = {}
        """Messages that wait, by channel; an entry for each channel that has a task."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def delete(self, guild: discord.Guild, channel_id: int, message_id: int, reason: str) -> str:
        """Delete a message. Returns why that failed, or nothing; a message that is gone already is deleted, too.

        `reason`: for Discord's audit log.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        started = channel_id in self._channels
        waiting = self._channels.setdefault(channel_id, OrderedDict())
        waiting.setdefault(message_id, _Waiting(reason)).futures.append(future)
        if not started:
            task = asyncio.create_task(self._work(guild, channel_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self, guild: discord.Guild, channel_id: int) -> None:
        """Delete what waits in a channel, until nothing does."""
        waiting = self._channels[channel_id]
        try:
            while waiting:
                batch = [waiting.popitem(last=False) for _ in range(min(BULK, len(waiting)))]
                failure = "the bot was stopped"
                try:
                    failure = await self._delete(guild, channel_id, batch)
                finally:
                    for future in (future for _, each in batch for future in each.futures):
                        if not future.done():  # its caller may be cancelled
                            future.set_result(failure)
        finally:
            del self._channels[channel_id]

    async def _delete(self, guild: discord.Guild, channel_id: int, batch: Sequence[tuple[int, _Waiting]]) -> str:
        # A thread that is archived is not known here; then Discord says what is missing.
        if missing := missing_permissions(guild.get_channel_or_thread(channel_id), manage_messages=True):
            return missing
        reason = "; ".join(dict.fromkeys(each.reason for _, each in batch))[:REASON_LENGTH]
        oldest = discord.utils.time_snowflake(discord.utils.utcnow() - BULK_AGE)
        together = [message for message, _ in batch if message > oldest]
        alone = [message for message, _ in batch if message <= oldest]
        if len(together) == 1:
            alone, together = [*alone, *together], []
        failure = ""
        if together:
            failure = await _tried(self._client.http.delete_messages, channel_id, together, reason)
        for message in alone:
            failure = await _tried(self._client.http.delete_message, channel_id, message, reason) or failure
        return failure


async def _tried(call: Callable[..., Awaitable[object]], channel_id: int, what: object, reason: str) -> str:
    try:
        await retry(lambda: call(channel_id, what, reason=reason))
    except discord.NotFound:
        return ""  # deleted meanwhile, by itself or with its channel
    except DISCORD_ERRORS as error:
        return describe_error(error)
    return ""
