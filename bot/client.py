"""The connection to Discord: minimal intents, events passed on, periodic work."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import discord
from discord.ext import commands, tasks

from bot.actions.appeals import AppealDecisionButton, AppealPost
from bot.actions.catching_up import CatchUp
from bot.actions.discord_calls import DISCORD_ERRORS, describe_error
from bot.actions.moderation import Moderation
from bot.actions.notices import AppealButton
from bot.actions.retrying import Retrying
from bot.actions.review import PictureMenu, ReviewButton
from bot.actions.shielding import Shield
from bot.actions.undoing import UndoButton
from bot.actions.wave_review import WaveButton
from bot.commands import cogs
from bot.commands.answering import on_command_error
from bot.services import Services
from bot.storage.database import StoreError
from stages.inference import ModelError

log = logging.getLogger(__name__)

COMMANDS_KEY = "commands"
"""Key in the database of the hash of the slash commands that Discord has."""

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
    """The minimum for moderation: servers, their messages, and the messages' content."""
    return discord.Intents(guilds=True, guild_messages=True, message_content=True)


def _unbroken(work: Callable[[Bot], Awaitable[None]]) -> Callable[[Bot], Coroutine[Any, Any, None]]:
    """Periodic work that goes on after any error: discord.py would end the loop for good."""

    @functools.wraps(work)
    async def run(bot: Bot) -> None:
        try:
            await work(bot)
        except Exception:
            bot.services.metrics.errors.labels("periodic").inc()
            log.exception("periodic work failed", extra={"work": work.__name__})

    return run


class Bot(commands.AutoShardedBot):
    """The Discord client. `Moderation`, the cogs and the review buttons do the work."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        super().__init__(
            command_prefix=commands.when_mentioned,  # discord.py requires one, but `on_message` never uses it
            help_command=None,
            intents=intents(),
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),  # messages and clicks bring their members along
            chunk_guilds_at_startup=False,
            max_messages=None,  # nothing reads the message cache, and without it memory stays flat
            shard_ids=list(settings.shard_ids) if settings.shard_ids else None,  # type: ignore[arg-type]
            shard_count=settings.shard_count,
        )
        self.services = services
        self.moderation = Moderation(services, self)
        self.catch_up = CatchUp(services, self.moderation)
        self.retrying = Retrying(services, self, self.moderation)
        self.appeals = AppealPost(services, self)

    async def setup_hook(self) -> None:
        """Register buttons and commands and start the periodic work. discord.py calls it once, before connecting."""
        self.add_dynamic_items(ReviewButton, PictureMenu, AppealButton, AppealDecisionButton, WaveButton, UndoButton)
        for cog in cogs(self, self.services, self.moderation, self.appeals):
            await self.add_cog(cog)
        await self._sync_commands()
        self.tree.on_error = on_command_error  # type: ignore[method-assign]
        self._guard_parsers()
        for loop in (self.flush, self.sweep, self.report, self.retry):
            loop.start()
        if self.services.settings.poll:
            self.poll.change_interval(seconds=self.services.settings.poll)
            self.poll.start()

    async def _sync_commands(self) -> None:
        """Upload the slash commands if they changed: Discord limits how often that is allowed."""
        if self.shard_ids and 0 not in self.shard_ids:
            return  # the process with the first shard does it for all
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        # With the application's id: another bot may use the same database later.
        digest = hashlib.sha256(json.dumps([self.application_id, payload], sort_keys=True).encode()).hexdigest()
        store, errors = self.services.store, self.services.metrics.errors
        try:
            if await store.get(COMMANDS_KEY) == digest:
                return
            await self.tree.sync()
            await store.put(COMMANDS_KEY, digest)
        except StoreError:
            errors.labels("store").inc()
        except DISCORD_ERRORS as error:
            # Moderation works without slash commands, so start all the same.
            errors.labels("commands").inc()
            log.error("could not upload the slash commands, the next start tries again: %s", describe_error(error))

    async def on_message(self, message: discord.Message) -> None:
        """Check a new message. This replaces discord.py's handler, so messages are never read as commands."""
        if not self.moderation.stopping:
            with self.catch_up.checking(message):
                await self.moderation.check(message)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Check an edited message. Discord adds the embeds of links by an edit, too."""
        if not self.moderation.stopping:
            await self.moderation.check(payload.message, again=True)

    @property
    def shield(self) -> Shield:
        """What acts on waves, for the buttons below their entries."""
        return self.moderation.shield

    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        """Forget a message that was taken back."""
        self.shield.removed([payload.message_id])

    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        """Forget messages that were deleted together."""
        self.shield.removed(payload.message_ids)

    def _guard_parsers(self) -> None:
        """Go on after an event that discord.py cannot parse: by itself it would end the connection for good."""
        parsers = self._connection.parsers

        def guarded(event: str, parse: Callable[[Any], None]) -> Callable[[Any], None]:
            def parse_or_log(data: Any) -> None:
                try:
                    parse(data)
                except Exception:
                    self.services.metrics.errors.labels("event").inc()
                    log.exception("could not parse an event", extra={"event_name": event})

            return parse_or_log

        parsers.update({event: guarded(event, parse) for event, parse in parsers.items()})

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """Count and log an error in a handler of events."""
        self.services.metrics.errors.labels("event").inc()
        log.exception("a handler failed", extra={"handler": event_method})

    async def on_guild_available(self, guild: discord.Guild) -> None:
        """Check what was posted while the bot or the server was away."""
        await self._know(guild)

    async def on_guild_join(self, guild: discord.Guild) -> None:
        """Begin to follow a new server."""
        await self._know(guild)

    async def _know(self, guild: discord.Guild) -> None:
        try:
            await self.services.store.policy(guild.id)  # into memory: it stays in force if the database is lost
        except StoreError:
            self.services.metrics.errors.labels("store").inc()
        self.catch_up.start(guild)

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        """Delete all data of a server that the bot has left."""
        try:
            await self.services.store.forget_guild(guild.id)
        except StoreError as error:
            log.warning("could not delete the data of a server that the bot has left: %s", error)

    async def on_shard_connect(self, shard: int) -> None:
        """Count a new session. What came after the last one ended is missing."""
        self.services.metrics.gateway.labels("connect").inc()
        self.catch_up.forget_session(shard, self.shard_count or 1)

    async def on_shard_resumed(self, shard: int) -> None:
        """Count a resumed session, in which Discord delivers the events missed meanwhile."""
        self.services.metrics.gateway.labels("resume").inc()

    async def on_shard_disconnect(self, shard: int) -> None:
        """Count a lost connection."""
        self.services.metrics.gateway.labels("disconnect").inc()

    async def on_ready(self) -> None:
        """Log that all shards are connected."""
        log.info("watching %d servers", len(self.guilds), extra={"shards": self.shard_count})

    @tasks.loop(seconds=15)
    @_unbroken
    async def flush(self) -> None:
        """Write rows that were kept back while the database was away, and how far the channels were checked."""
        await self.services.store.check()
        await self.catch_up.save()
        self.shield.expire()

    @tasks.loop(seconds=10)
    @_unbroken
    async def report(self) -> None:
        """Finish what an earlier process began, and what Discord did not take."""
        if self.is_ready() and not self.moderation.stopping:
            await self.moderation.outbox.resume()
            await self.appeals.run()
            self.catch_up.resume(list(self.guilds))

    @tasks.loop(seconds=10)
    @_unbroken
    async def retry(self) -> None:
        """Look again at pictures without a verdict."""
        if self.is_ready():
            await self.retrying.run()

    @tasks.loop(hours=1)
    @_unbroken
    async def sweep(self) -> None:
        """Delete rows older than the retention period."""
        days, store = self.services.settings.retention, self.services.store
        try:
            if count := await store.sweep(days):
                log.info("deleted %d rows older than %d days", count, days)
            if self.is_ready() and (count := await store.sweep_guilds(days, [guild.id for guild in self.guilds])):
                log.info("deleted the data of %d servers that the bot has left", count)
        except StoreError as error:
            self.services.metrics.errors.labels("store").inc()
            log.warning("could not delete old rows: %s", error)

    @tasks.loop(seconds=60)
    @_unbroken
    async def poll(self) -> None:
        """Load the model of a new tag."""
        try:
            await self.services.serving.poll()
        except ModelError as error:
            self.services.metrics.errors.labels("model").inc()
            log.error("could not load the new model, the old one keeps serving: %s", error)

    async def close(self) -> None:
        """Finish the messages in progress, then disconnect."""
        if not self.moderation.stopping:
            loops = [loop.get_task() for loop in (self.flush, self.sweep, self.poll, self.report, self.retry)]
            for task in loops:
                if task is not None:
                    task.cancel()
            await self.moderation.finish(self.services.settings.grace)
            await self.catch_up.stop()
            # The database is closed after this, and closing would wait for a statement that is still running.
            await asyncio.gather(*filter(None, loops), return_exceptions=True)
        await super().close()
