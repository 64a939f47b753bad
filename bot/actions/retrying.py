"""Looking again at pictures that have no verdict: the queue was full, or the CDN did not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error
from bot.actions.moderation import Moderation
from bot.actions.outbox import pause_before
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import Retry

log = logging.getLogger(__name__)

MAX_AGE = 7 * 86400
"""Seconds after which a picture is given up."""
MESSAGES_AT_ONCE = 4


class Retrying:
    """Works through the durable queue of pictures without a verdict, in turn by server and author."""

    def __init__(self, services: Services, client: discord.Client, moderation: Moderation) -> None:
        self._services = services
        self._client = client
        self._moderation = moderation

    async def run(self) -> None:
        """Try the pictures that are due, until none is."""
        while not self._moderation.stopping:
            try:
                due = await self._services.store.due_retries([guild.id for guild in self._client.guilds])
            except StoreError:
                self._services.metrics.errors.labels("store").inc()
                return
            if not due:
                return
            await self._try_all(due)

    async def _try_all(self, due: Sequence[Retry]) -> None:
        by_message: dict[int, list[Retry]] = {}
        for each in due:
            by_message.setdefault(each.message_id, []).append(each)
        limit = asyncio.Semaphore(MESSAGES_AT_ONCE)

        async def one(rows: Sequence[Retry]) -> None:
            async with limit:
                if not self._moderation.stopping:
                    await self._try(rows)

        await asyncio.gather(*map(one, by_message.values()))

    async def _try(self, rows: Sequence[Retry]) -> None:
        first, now = rows[0], self._services.store.now()
        try:
            # Written before the attempt: one that ends the process must not be repeated at once for ever.
            tries = first.tries + 1
            await self._services.store.postpone(first.message_id, tries, now + pause_before(tries))
            if now - first.created_at > MAX_AGE:
                await self._drop(first.message_id, "given up")
                return
            channel = self._client.get_partial_messageable(first.channel_id, guild_id=first.guild_id)
            try:
                message = await channel.fetch_message(first.message_id)
            except discord.NotFound:  # deleted, or its channel was
                await self._drop(first.message_id, "gone")
                return
            findings = await self._moderation.check(message, again=True, unjudged=True)
            waiting = {finding.reference.key for finding in findings if finding.retry}
            await self._drop(first.message_id, "judged", {row.picture for row in rows} - waiting)
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
        except DISCORD_ERRORS as error:
            log.warning("could not look at a message again: %s", describe_error(error))
        except Exception:  # one message must not keep the others waiting
            self._services.metrics.errors.labels("retry").inc()
            log.exception("could not look at a message again", extra={"message_id": first.message_id})

    async def _drop(self, message_id: int, result: str, pictures: Collection[str] | None = None) -> None:
        count = await self._services.store.drop_retries(message_id, pictures)
        self._services.metrics.recovered.labels("picture", result).inc(count)
        if result == "given up":
            log.warning("pictures stay without a verdict", extra={"message_id": message_id, "pictures": count})
