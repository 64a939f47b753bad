"""A message -> its new pictures -> findings -> one action -> the decision log."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace

import discord

from bot.actions.circumstances import AGE_GATED, MODERATOR, Contexts
from bot.actions.claims import Claims
from bot.actions.outbox import Outbox, pause_before
from bot.actions.shielding import Shield
from bot.actions.telling import Teller
from bot.pictures.examining import Finding
from bot.pictures.references import Reference, references
from bot.rules.policy import Action, GuildPolicy, limit_action, merge_outcomes
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import CLOSED, UNJUDGED_ORIGIN, Decision, Retry

log = logging.getLogger(__name__)

MAX_PICTURES = 20
"""Pictures of one message that are checked."""


def skip_reason(message: discord.Message, policy: GuildPolicy, own_ids: Collection[int | None]) -> str:
    """Why a message is not checked, wherever it is, or nothing. `own_ids`: of the bot's user and application."""
    author = message.author
    if message.guild is None:
        return "direct"
    if author.id in own_ids or (message.application_id is not None and message.application_id in own_ids):
        return "own"
    # People speak through webhooks too (bridges, proxies); a webhook with an application's id is that bot's answer.
    webhook = message.webhook_id is not None and message.webhook_id != message.application_id
    if author.bot and not webhook and policy.skip_bots:
        return "bot"
    return ""


class Moderation:
    """Checks messages and acts on them."""

    def __init__(self, services: Services, client: discord.Client) -> None:
        self._services = services
        self._client = client
        self._claims = Claims(services.store)
        self._contexts = Contexts()
        self._in_progress: dict[asyncio.Task[object], discord.Message] = {}
        self.teller = Teller(services, client)
        self.outbox = Outbox(services, client, self._announce)
        self.shield = Shield(services, client, self.outbox, self.teller)
        self.stopping = False
        """Whether `finish` was called: no new message may be started."""

    async def check(self, message: discord.Message, again: bool = False, unjudged: bool = False) -> list[Finding]:
        """Check a message's new pictures and do what the server's rules say.

        Args:
            message: messages outside a server are skipped.
            again: the message was edited or is an old one, so look up what was decided before a restart.
            unjudged: also check pictures that were checked without a verdict.

        Returns:
            A finding for each picture that was checked.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._in_progress[task] = message
        try:
            return await self._check(message, again, unjudged)
        finally:
            self._in_progress.pop(task, None)

    async def preview(self, message: discord.Message) -> list[Finding]:
        """Findings for the pictures of a message that no model has judged yet. Nothing is done and nothing recorded."""
        pictures = references(message)
        if not pictures or message.guild is None:
            return []
        reason, policy = await self._local_policy(message, await self._policy(message.guild.id))
        if reason:
            return []
        decided = await self._services.store.decisions_on(message.id)
        judged = {key for key, decision in decided.items() if decision.origin != UNJUDGED_ORIGIN}
        new = [picture for picture in pictures if picture.key not in judged]
        return await self._examine(new, message, policy) if new else []

    @property
    def _own_ids(self) -> tuple[int | None, ...]:
        """Of the bot's user and application, which may differ."""
        return self._client.application_id, self._client.user.id if self._client.user else None

    async def local_policy(self, message: discord.Message) -> GuildPolicy:
        """The settings of the message's server, with the rules that apply to this message."""
        policy = await self._policy(message.guild.id if message.guild else 0)
        return policy.at((await self._contexts.of(message, policy)).circumstances())

    async def _local_policy(self, message: discord.Message, policy: GuildPolicy) -> tuple[str, GuildPolicy]:
        """Why a message is not checked, or nothing, and the policy with the rules that apply to it."""
        if reason := skip_reason(message, policy, self._own_ids):
            return reason, policy
        context = await self._contexts.of(message, policy)
        return context.exemption(policy), policy.at(context.circumstances())

    async def _check(self, message: discord.Message, again: bool, unjudged: bool) -> list[Finding]:
        pictures = references(message)
        if not pictures or message.guild is None:
            return []
        reason, policy = await self._local_policy(message, await self._policy(message.guild.id))
        # What is posted for adults is nobody's business here, and the shield has a setting of its own for moderators.
        if reason in ("", AGE_GATED, MODERATOR) and await self.shield.note(message, pictures, policy) > Action.FLAG:
            reason = "wave"  # it is being deleted
        if reason:
            self._services.metrics.messages.labels(reason).inc()
            return []
        new = await self._claims.claim(message.id, pictures, again, unjudged)
        findings = None
        try:
            findings = await self._examine(new, message, policy) if new else []
            if findings:
                await self._act(message, findings, policy)
        except BaseException:
            findings = None
            raise
        finally:
            self._claims.release(message.id, new, findings)
        if new:
            self._services.metrics.messages.labels("looked at").inc()
        return findings

    async def _policy(self, guild_id: int) -> GuildPolicy:
        try:
            return await self._services.store.policy(guild_id)
        except StoreError:
            # Without the server's own rules: check and log, but act on nothing, which is what the default does.
            self._services.metrics.errors.labels("store").inc()
            return GuildPolicy()

    async def _examine(self, pictures: list[Reference], message: discord.Message, policy: GuildPolicy) -> list[Finding]:
        examiner, guild_id = self._services.examiner, message.guild.id if message.guild else 0
        start = time.perf_counter()
        results = await asyncio.gather(
            *(examiner.examine(picture, guild_id, policy, message.author.id) for picture in pictures[:MAX_PICTURES])
        )
        self._services.metrics.seconds.observe(time.perf_counter() - start)
        detail = f"only the first {MAX_PICTURES} pictures of a message are checked"
        surplus = [examiner.unjudged(picture, policy, "too_many", detail) for picture in pictures[MAX_PICTURES:]]
        return [finding for finding in results if finding is not None] + surplus

    async def _act(self, message: discord.Message, findings: list[Finding], policy: GuildPolicy) -> None:
        outcome = merge_outcomes(finding.outcome for finding in findings)
        action = limit_action(policy.mode, outcome.action)
        found = [self._decision(message, finding) for finding in findings]
        if await self.shield.learn(message, findings, policy):
            # Its entry in the mod-log is the wave's.
            action, found = Action.LOG, [_as_part_of_wave(row) for row in found]
        elif action > Action.FLAG:
            self.shield.keep(message.id)
        retries = [self._retry(message, finding) for finding in findings if finding.retry]
        if action is Action.LOG:
            await self._services.store.record(*found, *retries)
            self._announce(found)
            done: Action = action
        else:
            done = (await self.outbox.act(message, findings, [*found, *retries], outcome, action, policy)).action
        self._services.metrics.actions.labels(action.name.lower(), "done" if done == action else "refused").inc()
        if done is not Action.LOG and message.guild:
            await self.teller.check_modlog(message.guild, policy)

    def _announce(self, rows: Sequence[Decision]) -> None:
        """Log and count decisions that are final."""
        for row in rows:
            self._services.metrics.pictures.labels(row.verdict, row.origin).inc()
            log.info("decision", extra={name: getattr(row, name) for name in row.__dataclass_fields__})

    def _retry(self, message: discord.Message, finding: Finding) -> Retry:
        now = self._services.store.now()
        return Retry(
            message_id=message.id,
            picture=finding.reference.key,
            guild_id=message.guild.id if message.guild else 0,
            channel_id=message.channel.id,
            user_id=message.author.id,
            tries=0,
            due_at=now + pause_before(0),
            created_at=now,
        )

    def _decision(self, message: discord.Message, finding: Finding) -> Decision:
        """The decision on one picture, before anything is done."""
        outcome = finding.outcome
        return Decision(
            id=uuid.uuid4().hex,
            guild_id=message.guild.id if message.guild else 0,
            channel_id=message.channel.id,
            message_id=message.id,
            picture=finding.reference.key,
            user_id=message.author.id,
            sha256=finding.sha256,
            phash=finding.phash,
            verdict=finding.verdict,
            label=outcome.label,
            score=outcome.score,
            threshold=outcome.threshold,
            scores=finding.scores,
            action=outcome.action,
            done=Action.LOG,
            origin=finding.origin,
            model=finding.version,
            detail=finding.detail[:300],
            created_at=self._services.store.now(),
            state=CLOSED,
        )

    @property
    def in_progress(self) -> int:
        """Number of messages being checked."""
        return len(self._in_progress)

    async def finish(self, seconds: float) -> None:
        """Start nothing new, and let the messages in progress finish; what takes over `seconds` is cancelled."""
        self.stopping = True
        # Without the caller's own task, which would otherwise wait for itself.
        tasks = (self._in_progress.keys() | self.shield.tasks) - {asyncio.current_task()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            if message := self._in_progress.get(task):
                ids = {"message_id": message.id, "channel_id": message.channel.id}
                log.warning("stopped before the pictures of a message were checked", extra=ids)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _as_part_of_wave(row: Decision) -> Decision:
    """A decision on a picture of a message that the mod-log has another entry for."""
    return replace(row, detail="; ".join(filter(None, ("part of a wave", row.detail)))[:300])
