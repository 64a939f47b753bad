"""A message -> its new pictures -> findings -> one action -> the decision log."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Collection

import discord

from bot.actions import modlog
from bot.actions.execution import ActionResult, carry_out
from bot.actions.telling import Teller
from bot.pictures.examining import Finding
from bot.pictures.references import Reference, references
from bot.rules.policy import Action, GuildPolicy, RuleOutcome, limit_action, merge_outcomes
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import CLOSED, OPEN, Decision

log = logging.getLogger(__name__)

REMEMBERED_MESSAGES = 2_000
"""Messages whose checked pictures are kept in memory, so that an edit does not check them again."""
MAX_PICTURES = 20
"""Pictures of one message that are checked."""


def skip_reason(message: discord.Message, policy: GuildPolicy, own_ids: Collection[int | None]) -> str:
    """Why a message is not checked, or nothing. `own_ids`: the bot's user and application, which may differ."""
    author, channel = message.author, message.channel
    if message.guild is None:
        return "direct"
    if author.id in own_ids or (message.application_id is not None and message.application_id in own_ids):
        return "own"
    # People speak through webhooks too (bridges, proxies); a webhook with an application's id is that bot's answer.
    webhook = message.webhook_id is not None and message.webhook_id != message.application_id
    if author.bot and not webhook and policy.skip_bots:
        return "bot"
    if isinstance(author, discord.Member) and policy.exempt_roles & {role.id for role in author.roles}:
        return "exempt role"
    # A thread is exempt with its channel, and both with their category.
    containers = {channel.id, getattr(channel, "parent_id", None), getattr(channel, "category_id", None)}
    if policy.exempt_channels & containers:
        return "exempt channel"
    if policy.skip_age_gated and is_age_restricted(channel, message.guild):
        return "age-gated"
    return ""


def is_age_restricted(channel: object, guild: discord.Guild) -> bool:
    """Whether the channel, its thread's parent or the whole server is for adults."""
    if guild.nsfw_level in (discord.NSFWLevel.explicit, discord.NSFWLevel.age_restricted):
        return True
    if isinstance(channel, discord.Thread):
        channel = channel.parent  # a thread has no setting of its own
    return bool(getattr(channel, "nsfw", False))


class Moderation:
    """Checks messages and acts on them."""

    def __init__(self, services: Services, client: discord.Client) -> None:
        self._services = services
        self._client = client
        self._checked: OrderedDict[int, set[str]] = OrderedDict()
        self._in_progress: dict[asyncio.Task[object], discord.Message] = {}
        self.teller = Teller(services, client)
        self.stopping = False
        """Whether `finish` was called: no new message may be started."""

    async def check(self, message: discord.Message, again: bool = False) -> list[Finding]:
        """Check a message's new pictures and do what the server's rules say.

        Args:
            message: messages outside a server are skipped.
            again: the message was edited or is an old one, so look up what was decided before a restart.

        Returns:
            A finding for each new picture.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._in_progress[task] = message
        try:
            return await self._check(message, again)
        finally:
            self._in_progress.pop(task, None)

    async def preview(self, message: discord.Message) -> list[Finding]:
        """Findings for the pictures of a message that no model has judged yet. Nothing is done and nothing recorded."""
        pictures = references(message)
        if not pictures or message.guild is None:
            return []
        policy = await self._policy(message.guild.id)
        if skip_reason(message, policy, self._own_ids):
            return []
        decided = await self._services.store.decisions_on(message.id)
        judged = {key for key, decision in decided.items() if decision.origin != "unjudged"}
        new = [picture for picture in pictures if picture.key not in judged]
        return await self._examine(new, message.guild.id, policy) if new else []

    @property
    def _own_ids(self) -> tuple[int | None, ...]:
        """Of the bot's user and application, which may differ."""
        return self._client.application_id, self._client.user.id if self._client.user else None

    async def _check(self, message: discord.Message, again: bool) -> list[Finding]:
        pictures = references(message)
        if not pictures or message.guild is None:
            return []
        policy = await self._policy(message.guild.id)
        if reason := skip_reason(message, policy, self._own_ids):
            self._services.metrics.messages.labels(reason).inc()
            return []
        new = await self._claim_new(message.id, pictures, again)
        if not new:
            return []
        findings = await self._examine(new, message.guild.id, policy)
        if findings:
            await self._act(message, findings, policy)
        self._services.metrics.messages.labels("looked at").inc()
        return findings

    async def _policy(self, guild_id: int) -> GuildPolicy:
        try:
            return await self._services.store.policy(guild_id)
        except StoreError:
            # Without the server's own rules: check and log, but act on nothing, which is what the default does.
            self._services.metrics.errors.labels("store").inc()
            return GuildPolicy()

    async def _claim_new(self, message_id: int, pictures: list[Reference], again: bool) -> list[Reference]:
        """The pictures that were not checked yet. They count as checked from now on."""
        if message_id not in self._checked:
            # Before the database is queried: an edit that arrives meanwhile must find these pictures taken.
            self._checked[message_id] = set()
            while len(self._checked) > REMEMBERED_MESSAGES:
                self._checked.popitem(last=False)
            if again:
                self._checked[message_id] |= set(await self._services.store.decisions_on(message_id))
        # `get`, because other messages may have pushed this one out during the query.
        keys = self._checked.get(message_id, set())
        new = [picture for picture in pictures if picture.key not in keys]
        keys |= {picture.key for picture in new}
        return new

    async def _examine(self, pictures: list[Reference], guild_id: int, policy: GuildPolicy) -> list[Finding]:
        examiner = self._services.examiner
        start = time.perf_counter()
        results = await asyncio.gather(
            *(examiner.examine(picture, guild_id, policy) for picture in pictures[:MAX_PICTURES])
        )
        self._services.metrics.seconds.observe(time.perf_counter() - start)
        detail = f"only the first {MAX_PICTURES} pictures of a message are checked"
        surplus = [examiner.unjudged(picture, policy, "too_many", detail) for picture in pictures[MAX_PICTURES:]]
        return [finding for finding in results if finding is not None] + surplus

    async def _act(self, message: discord.Message, findings: list[Finding], policy: GuildPolicy) -> None:
        outcome = merge_outcomes(finding.outcome for finding in findings)
        action = limit_action(policy.mode, outcome.action)
        result = await carry_out(message, action, outcome, policy, self._services.fetcher)
        self._services.metrics.actions.labels(
            action.name.lower(), "done" if result.action == action else "refused"
        ).inc()
        if result.repost_id and message.guild:
            await self._services.store.save_repost(message.guild.id, message.id, result.repost_id)
        # Before the mod-log entry is posted: a click on its buttons looks the decisions up.
        for finding in findings:
            await self._record(message, finding, policy, result)
        if result.action is not Action.LOG:
            await self._post_to_modlog(message, findings, outcome, result, policy)
            if message.guild:
                await self.teller.check_modlog(message.guild, policy)

    async def _post_to_modlog(
        self,
        message: discord.Message,
        findings: list[Finding],
        outcome: RuleOutcome,
        result: ActionResult,
        policy: GuildPolicy,
    ) -> None:
        matched = [finding for finding in findings if finding.outcome.action]
        if failure := await modlog.post(message, matched, outcome, result, policy):
            self._services.metrics.errors.labels("mod-log").inc()
            ids = {"guild_id": message.guild.id if message.guild else 0, "message_id": message.id}
            log.warning("could not post to the mod-log: %s", failure, extra=ids)

    async def _record(
        self, message: discord.Message, finding: Finding, policy: GuildPolicy, result: ActionResult
    ) -> None:
        """Write one picture's decision to the log and the database."""
        decision = self._decision(message, finding, result)
        self._services.metrics.pictures.labels(finding.verdict, finding.origin).inc()
        values = {name: getattr(decision, name) for name in decision.__dataclass_fields__}
        log.info("decision", extra={**values, "mode": policy.mode.value})
        await self._services.store.record(decision)

    def _decision(self, message: discord.Message, finding: Finding, result: ActionResult) -> Decision:
        outcome = finding.outcome
        # A harmless picture beside a bad one matched no rule: what was done to the message was not done for it.
        matched = bool(outcome.action)
        details = (finding.detail, result.detail if matched else "")
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
            done=result.action if matched else Action.LOG,
            origin=finding.origin,
            model=finding.version,
            detail="; ".join(filter(None, details))[:300],
            created_at=self._services.store.now(),
            state=OPEN if matched and result.action is not Action.LOG else CLOSED,
        )

    @property
    def in_progress(self) -> int:
        """Number of messages being checked."""
        return len(self._in_progress)

    async def finish(self, seconds: float) -> None:
        """Start nothing new, and let the messages in progress finish; what takes over `seconds` is cancelled."""
        self.stopping = True
        # Without the caller's own task, which would otherwise wait for itself.
        tasks = self._in_progress.keys() - {asyncio.current_task()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            if message := self._in_progress.get(task):
                ids = {"message_id": message.id, "channel_id": message.channel.id}
                log.warning("stopped before the pictures of a message were checked", extra=ids)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
