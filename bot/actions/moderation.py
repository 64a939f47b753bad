"""A message -> its pictures -> findings -> one action. Thin: each step is a module of its own."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Collection

import discord

from bot.actions import review
from bot.actions.execution import Done, carry_out
from bot.pictures.examining import Finding
from bot.pictures.references import Reference, references
from bot.rules.policy import Action, GuildPolicy, carried_out, merged
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import CLOSED, OPEN, Decision

log = logging.getLogger(__name__)

REMEMBERED = 2_000
"""Messages of which it is known which pictures were judged, so that an edit's old ones are not judged again."""
PICTURES = 20
"""Looked at in one message."""


def skipped(message: discord.Message, policy: GuildPolicy, own: Collection[int | None]) -> str:
    """Why a message is not looked at, or nothing. `own`: ids of the bot's user and application, which may differ."""
    author, channel = message.author, message.channel
    if message.guild is None:
        return "direct"
    if author.id in own or (message.application_id is not None and message.application_id in own):
        return "own"
    # People speak through webhooks too (bridges, proxies); a webhook of an application's own is its answer.
    hook = message.webhook_id is not None and message.webhook_id != message.application_id
    if author.bot and not hook and policy.skip_bots:
        return "bot"
    if isinstance(author, discord.Member) and policy.exempt_roles & {role.id for role in author.roles}:
        return "exempt role"
    above = {channel.id, getattr(channel, "parent_id", None), getattr(channel, "category_id", None)}
    if policy.exempt_channels & above:
        return "exempt channel"
    if policy.skip_age_gated and age_gated(channel, message.guild):
        return "age-gated"
    return ""


def age_gated(channel: object, guild: discord.Guild) -> bool:
    """Whether adults only come here: by the channel, its thread's parent, or the whole guild."""
    if guild.nsfw_level in (discord.NSFWLevel.explicit, discord.NSFWLevel.age_restricted):
        return True
    if isinstance(channel, discord.Thread):
        channel = channel.parent
    return bool(getattr(channel, "nsfw", False))


class Moderation:
    """Watches messages."""

    def __init__(self, services: Services, client: discord.Client) -> None:
        self._services = services
        self._client = client
        self.stopping = False
        """Whether `finish` was called: nothing new is to be begun."""
        self._judged: OrderedDict[int, set[str]] = OrderedDict()
        self._under_way: dict[asyncio.Task[object], discord.Message] = {}

    async def consider(self, message: discord.Message, again: bool = False) -> list[Finding]:
        """Look at a message's pictures that were not judged yet, and do what the guild's rules say.

        Args:
            message: of a guild; others are skipped.
            again: it was edited, or is an old one: what was judged before a restart is looked up.

        Returns:
            What was found of each picture that is new.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._under_way[task] = message
        try:
            return await self._consider(message, again)
        finally:
            self._under_way.pop(task, None)

    async def _consider(self, message: discord.Message, again: bool) -> list[Finding]:
        services, client = self._services, self._client
        shown = references(message)
        if not shown or message.guild is None:
            return []
        try:
            policy = await services.store.policy(message.guild.id)
        except StoreError:  # its own rules are out of reach: look, and touch nothing
            services.metrics.errors.labels("store").inc()
            policy = GuildPolicy()
        if reason := skipped(message, policy, (client.application_id, client.user.id if client.user else None)):
            services.metrics.messages.labels(reason).inc()
            return []
        new = await self._new(message.id, shown, again)
        if not new:
            return []
        findings = await self._examined(new, message.guild.id, policy)
        if findings:
            await self._act(message, findings, policy)
        services.metrics.messages.labels("looked at").inc()
        return findings

    async def _new(self, message: int, shown: list[Reference], again: bool) -> list[Reference]:
        """Those not judged yet, which count as judged from now on."""
        if message not in self._judged:
            # Claimed before the database is asked, so that an edit that comes meanwhile finds them taken.
            self._judged[message] = set()
            while len(self._judged) > REMEMBERED:
                self._judged.popitem(last=False)
            if again:
                self._judged[message] |= set(await self._services.store.decided(message))
        known = self._judged.get(message, set())
        new = [each for each in shown if each.key not in known]
        known |= {each.key for each in new}
        return new

    async def _examined(self, new: list[Reference], guild: int, policy: GuildPolicy) -> list[Finding]:
        services = self._services
        start = time.perf_counter()
        found = await asyncio.gather(*(services.examiner.examine(each, guild, policy) for each in new[:PICTURES]))
        services.metrics.seconds.observe(time.perf_counter() - start)
        detail = f"only {PICTURES} pictures of a message are looked at"
        over = [services.examiner.unjudged(each, policy, "too_many", detail) for each in new[PICTURES:]]
        return [each for each in found if each is not None] + over

    async def _act(self, message: discord.Message, findings: list[Finding], policy: GuildPolicy) -> None:
        services, guild = self._services, message.guild
        assert guild is not None  # noqa: S101
        outcome = merged(each.outcome for each in findings)
        wanted = carried_out(policy.mode, outcome.action)
        done = await carry_out(message, wanted, outcome, policy, services.fetcher)
        result = "done" if done.action == wanted else "refused"
        services.metrics.actions.labels(wanted.name.lower(), result).inc()
        for finding in findings:  # before moderators see it, for a click looks it up
            await self._keep(message, finding, policy, done)
        if done.action is not Action.LOG:
            shown = [each for each in findings if each.outcome.action]
            if told := await review.post(message, shown, outcome, done, policy):
                services.metrics.errors.labels("mod-log").inc()
                values = {"guild_id": guild.id, "message_id": message.id}
                log.warning("moderators could not be told: %s", told, extra=values)

    async def _keep(self, message: discord.Message, finding: Finding, policy: GuildPolicy, done: Done) -> None:
        """Record one picture's decision, in the log and in the database."""
        told = bool(finding.outcome.action) and done.action is not Action.LOG
        decision = Decision(
            id=uuid.uuid4().hex,
            guild_id=message.guild.id if message.guild else 0,
            channel_id=message.channel.id,
            message_id=message.id,
            picture=finding.reference.key,
            user_id=message.author.id,
            sha256=finding.sha256,
            phash=finding.phash,
            verdict=finding.verdict,
            label=finding.outcome.label,
            score=finding.outcome.score,
            threshold=finding.outcome.threshold,
            scores=finding.scores,
            action=finding.outcome.action,
            done=done.action if finding.outcome.action else Action.LOG,
            origin=finding.origin,
            model=finding.version,
            detail="; ".join(filter(None, (finding.detail, done.detail if finding.outcome.action else "")))[:300],
            created_at=self._services.store.now(),
            state=OPEN if told else CLOSED,
        )
        self._services.metrics.pictures.labels(finding.verdict, finding.origin).inc()
        values = {name: getattr(decision, name) for name in decision.__dataclass_fields__ if name != "scores"}
        log.info("decision", extra={**values, "mode": policy.mode.value, "scores": finding.scores})
        await self._services.store.record(decision)

    @property
    def under_way(self) -> int:
        """Messages that are being looked at."""
        return len(self._under_way)

    async def finish(self, seconds: float) -> None:
        """Let what is under way come to its end; what does not within `seconds` is cancelled, and logged."""
        self.stopping = True
        tasks = self._under_way.keys() - {asyncio.current_task()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            if message := self._under_way.get(task):
                values = {"message_id": message.id, "channel_id": message.channel.id}
                log.warning("stopped before its pictures were judged", extra=values)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
