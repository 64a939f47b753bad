"""The connection to Discord: asks for the least, hands messages on, keeps time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging

import discord
from discord.ext import commands, tasks

from bot.actions import review
from bot.actions.execution import UNDONE, refusal
from bot.actions.moderation import Moderation
from bot.commands import cogs
from bot.commands.answering import failed
from bot.services import Services
from bot.storage.database import StoreError
from stages.inference import ModelError

log = logging.getLogger(__name__)

COMMANDS = "commands"
"""Key of the hash of the commands that Discord was told of."""


PERMISSIONS = discord.Permissions(
    view_channel=True,
    read_message_history=True,
    send_messages=True,
    send_messages_in_threads=True,
    embed_links=True,
    attach_files=True,
    manage_messages=True,
    moderate_members=True,
)
"""What the invite link asks for."""


def intents() -> discord.Intents:
    """The least that moderation needs: which servers there are, their messages, and what is in those."""
    return discord.Intents(guilds=True, guild_messages=True, message_content=True)


class Bot(commands.AutoShardedBot):
    """The connection; the work is done by `Moderation`, the cogs and the review buttons."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            intents=intents(),
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,  # memory stays flat: nothing here looks a message up in a cache
            shard_ids=list(settings.shard_ids) if settings.shard_ids else None,  # type: ignore[arg-type]
            shard_count=settings.shard_count,
        )
        self.services = services
        self.moderation = Moderation(services, self)

    async def setup_hook(self) -> None:
        """Once, before the first connection."""
        self.add_dynamic_items(review.Choice)
        for cog in cogs(self, self.services, self.moderation):
            await self.add_cog(cog)
        await self._tell_commands()
        self.tree.on_error = failed  # type: ignore[method-assign]
        self.flush.start()
        self.sweep.start()
        if self.services.settings.poll:
            self.poll.change_interval(seconds=self.services.settings.poll)
            self.poll.start()

    async def _tell_commands(self) -> None:
        """Tell Discord the commands, if it has not been told these before: it allows that only so often."""
        if self.shard_ids and 0 not in self.shard_ids:
            return  # the process with the first shard does it for all
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        told = hashlib.sha256(json.dumps([self.application_id, payload], sort_keys=True).encode()).hexdigest()
        try:
            if await self.services.store.get(COMMANDS) == told:
                return
            await self.tree.sync()
            await self.services.store.put(COMMANDS, told)
        except StoreError:
            self.services.metrics.errors.labels("store").inc()
        except UNDONE as error:  # pictures are judged without
            self.services.metrics.errors.labels("commands").inc()
            log.error("Discord was not told the commands, the next start tries again: %s", refusal(error))

    async def on_message(self, message: discord.Message) -> None:
        """A new message: its pictures. No command is read from messages."""
        if not self.moderation.stopping:
            await self.moderation.consider(message)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """An edit: of its author, or of Discord, which adds embeds that way."""
        if not self.moderation.stopping:
            await self.moderation.consider(payload.message, again=True)

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        """Out of a server: nothing of it is kept."""
        try:
            await self.services.store.forget_guild(guild.id)
        except StoreError as error:
            log.warning("what is kept of a server that was left is still there: %s", error)

    async def on_shard_connect(self, shard: int) -> None:
        """Counted."""
        self.services.metrics.gateway.labels("connect").inc()

    async def on_shard_resumed(self, shard: int) -> None:
        """Counted: what was missed meanwhile is delivered now."""
        self.services.metrics.gateway.labels("resume").inc()

    async def on_shard_disconnect(self, shard: int) -> None:
        """Counted."""
        self.services.metrics.gateway.labels("disconnect").inc()

    async def on_ready(self) -> None:
        """Connected."""
        log.info("watching %d servers", len(self.guilds), extra={"shards": self.shard_count})

    @tasks.loop(seconds=15)
    async def flush(self) -> None:
        """Write what waits for the database."""
        await self.services.store.flush()

    @tasks.loop(hours=1)
    async def sweep(self) -> None:
        """Remove what is too old."""
        try:
            if gone := await self.services.store.sweep(self.services.settings.retention):
                log.info("%d rows older than %d days removed", gone, self.services.settings.retention)
        except StoreError as error:
            self.services.metrics.errors.labels("store").inc()
            log.warning("nothing was swept: %s", error)

    @tasks.loop(seconds=60)
    async def poll(self) -> None:
        """Take up a new tag."""
        try:
            await self.services.serving.poll()
        except ModelError as error:
            self.services.metrics.errors.labels("model").inc()
            log.error("the new model is refused, the old one keeps serving: %s", error)

    async def close(self) -> None:
        """Finish what is under way, then leave."""
        if not self.moderation.stopping:
            tasks = [loop.get_task() for loop in (self.flush, self.sweep, self.poll)]
            for task in tasks:
                if task is not None:
                    task.cancel()
            await self.moderation.finish(self.services.settings.grace)
            # A statement that is cut short must have come to its end when the database is closed, or that would wait.
            await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        await super().close()
