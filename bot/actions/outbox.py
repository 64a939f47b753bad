"""Acting once and telling once: what is to be done is written down first, and reported even after a crash."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import discord

from bot.actions import modlog
from bot.actions.discord_calls import DISCORD_ERRORS, describe_error
from bot.actions.evidence import NamedFile, fetch_evidence
from bot.actions.execution import ActionResult, carry_out, time_out
from bot.actions.modlog import Entry
from bot.actions.notices import tell_author
from bot.actions.remembering import remembered_thumbnail
from bot.actions.reposting import is_repost_of
from bot.actions.striking import strike
from bot.pictures.examining import Finding
from bot.rules.policy import Action, GuildPolicy, RuleOutcome
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import ACTED, OPEN, PLANNED, POSTED, Appeal, Decision, Job, Retry, decisions

log = logging.getLogger(__name__)

MIN_PAUSE, MAX_PAUSE = 10, 3600
"""Seconds before the second attempt, doubled before each further one, and at most."""
MAX_AGE = 7 * 86400
"""Seconds after which an entry is given up."""
WAVE = "wave"
"""Key in the entry of a job about a wave: the wave's id."""
SEARCHED = 200
"""Messages among which a repost of before a crash is looked for."""


def pause_before(tries: int) -> int:
    """Seconds to wait after so many failed attempts."""
    return int(min(MIN_PAUSE * 2 ** min(tries, 20), MAX_PAUSE))


class Outbox:
    """Acts on messages and posts their mod-log entries. Every step is in the database before the next one begins."""

    def __init__(
        self, services: Services, client: discord.Client, announce: Callable[[Sequence[Decision]], None]
    ) -> None:
        """`announce` is called with decisions once they are final and stored."""
        self._services = services
        self._client = client
        self._announce = announce
        self._active: set[str] = set()
        """Jobs that a task of this process works on."""
        self.finish_wave: Callable[[Job, discord.Guild], Awaitable[None]] | None = None
        """Finishes a job about a wave."""

    async def act(
        self,
        message: discord.Message,
        findings: Sequence[Finding],
        rows: Sequence[Decision | Retry],
        outcome: RuleOutcome,
        action: Action,
        policy: GuildPolicy,
    ) -> ActionResult:
        """Do `action` to a message, store the decisions, and post the mod-log entry.

        Args:
            message: in a server.
            findings: on its pictures that were checked.
            rows: what to store with it: the decisions, before anything is done, and retries.
            outcome: what the rules ask for.
            action: what the server's mode allows of it, FLAG or more.
            policy: the server's.
        """
        job = self._new_job(message, findings, rows, outcome, action)
        self._active.add(job.id)
        try:
            if action > Action.FLAG:  # a flag does nothing to the message
                await self._services.store.record(*rows, job)
            matched = [finding.reference for finding in findings if finding.outcome.action]
            keep = policy.evidence and action > Action.FLAG
            evidence = await fetch_evidence(self._services.fetcher, matched if keep else [])
            result = await carry_out(message, action, outcome, policy, self._services.fetcher)
            if result.repost_id:
                await self._services.store.save_repost(job.guild_id, job.message_id, result.repost_id)
            entry = Entry(**job.entry).with_result(result)
            if message.guild:
                entry = await self._with_strike(entry, job, message.guild, policy)
            job = replace(job, state=ACTED, entry=entry.to_json())
            await self._store(rows, result, job)
            await self._report(job, message.guild, policy, findings, evidence=evidence)
            if not message.author.bot:
                await self._tell_author(job, message.guild, policy)
        finally:
            self._active.discard(job.id)
        return result

    async def _with_strike(self, entry: Entry, job: Job, guild: discord.Guild, policy: GuildPolicy) -> Entry:
        """An entry after the deletion was counted against its author."""
        if entry.action < Action.DELETE:
            return entry
        cause = f"{entry.label} {entry.score:.2f}"
        return replace(entry, strike=await strike(self._services, guild, policy, job.user_id, job.message_id, cause))

    async def _store(self, rows: Sequence[Decision | Retry], result: ActionResult, job: Job) -> None:
        """Store what was done, before it is reported: a click on the entry's buttons looks the decisions up."""
        final = [_with_result(row, result) for row in rows]
        await self._services.store.record(*final, job)
        self._announce([row for row in final if isinstance(row, Decision)])

    def _new_job(
        self,
        message: discord.Message,
        findings: Sequence[Finding],
        rows: Sequence[Decision | Retry],
        outcome: RuleOutcome,
        action: Action,
    ) -> Job:
        now = self._services.store.now()
        matched = [finding for finding in findings if finding.outcome.action]
        ids = [row.id for row in rows if isinstance(row, Decision) and row.action]
        return Job(
            id=uuid.uuid4().hex,
            guild_id=message.guild.id if message.guild else 0,
            channel_id=message.channel.id,
            message_id=message.id,
            user_id=message.author.id,
            state=PLANNED,
            tries=0,
            due_at=now,
            entry=Entry.of(matched, outcome, action, ids).to_json(),
            created_at=now,
        )

    async def _report(
        self,
        job: Job,
        guild: discord.Guild | None,
        policy: GuildPolicy,
        findings: Sequence[Finding] = (),
        again: bool = False,
        evidence: Sequence[NamedFile] = (),
    ) -> None:
        """Post the entry of a job, and note that it is posted, or when to try again."""
        assert guild is not None  # noqa: S101 - direct messages are skipped
        thumbnails = []
        for finding in findings:
            if finding.outcome.action and finding.thumbnail:
                thumbnails.append(finding.thumbnail)
                thumbnails += await self._remembered(finding)
        failure = await modlog.post(job, guild, policy, thumbnails, again, evidence)
        if not failure:
            await self._services.store.record(replace(job, state=POSTED))
            return
        await self.report_failure(job, policy, failure)

    async def report_failure(self, job: Job, policy: GuildPolicy, failure: str) -> None:
        """Note that the entry of a job could not be posted, and when to try again."""
        self._services.metrics.errors.labels("mod-log").inc()
        ids = {"guild_id": job.guild_id, "message_id": job.message_id}
        log.warning("could not post to the mod-log: %s", failure, extra=ids)
        if policy.modlog is None:  # turned off on purpose: nobody waits for the entry
            await self._services.store.record(replace(job, state=POSTED))
        else:
            await self._postpone(job)

    async def _tell_author(self, job: Job, guild: discord.Guild | None, policy: GuildPolicy) -> None:
        """Tell the author what was done, if the server wants that."""
        entry = Entry(**job.entry)
        if guild is None or job.user_id is None:
            return
        appeal = Appeal(
            message_id=job.message_id,
            guild_id=job.guild_id,
            channel_id=job.channel_id,
            user_id=job.user_id,
            label=entry.label,
            action=entry.action,
            created_at=self._services.store.now(),
        )
        await tell_author(self._services, self._client, guild, policy, appeal)

    async def _remembered(self, finding: Finding) -> list[bytes]:
        """The thumbnail of the picture that this one may be a copy of, to be shown beside it."""
        if finding.likely is None or not finding.likely.ruling.link:
            return []
        thumbnail = await remembered_thumbnail(self._services, self._client, finding.likely.ruling.link)
        return [thumbnail] if thumbnail else []

    async def _postpone(self, job: Job) -> None:
        now = self._services.store.now()
        if now - job.created_at > MAX_AGE:
            log.error("an entry for the mod-log was given up", extra={"message_id": job.message_id})
            self._services.metrics.recovered.labels("entry", "given up").inc()
            await self._services.store.record(replace(job, state=POSTED))
        else:
            await self._services.store.record(replace(job, tries=job.tries + 1, due_at=now + pause_before(job.tries)))

    # After a crash, or when Discord did not answer

    async def resume(self) -> None:
        """Finish the jobs that are due: of an earlier process, or postponed."""
        try:
            jobs = await self._services.store.due_jobs([guild.id for guild in self._client.guilds])
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
            return
        for job in jobs:
            guild = self._client.get_guild(job.guild_id)
            if job.id in self._active or guild is None or guild.unavailable:
                continue
            self._active.add(job.id)
            try:
                if WAVE in job.entry and self.finish_wave:
                    await self.finish_wave(job, guild)
                else:
                    await self._finish(job, guild)
            except DISCORD_ERRORS as error:
                log.warning("could not finish what was begun: %s", describe_error(error))
                await self._postpone(job)
            except StoreError:
                self._services.metrics.errors.labels("store").inc()
            finally:
                self._active.discard(job.id)

    async def _finish(self, job: Job, guild: discord.Guild) -> None:
        policy = await self._services.store.policy(guild.id)
        if job.state == PLANNED:
            result = await self._redo(job, Entry(**job.entry), guild, policy)
            entry = await self._with_strike(Entry(**job.entry).with_result(result), job, guild, policy)
            rows = await self._services.store.decisions(decisions.c.message_id == job.message_id)
            undecided = [row for row in rows if row.id in entry.decisions and row.moderator_id is None]
            job = replace(job, state=ACTED, entry=entry.to_json())
            await self._store(undecided, result, job)
        self._services.metrics.recovered.labels("entry", "posted").inc()
        await self._report(job, guild, policy, again=True)
        await self._tell_author(job, guild, policy)  # unless that was done before a crash

    async def _redo(self, job: Job, entry: Entry, guild: discord.Guild, policy: GuildPolicy) -> ActionResult:
        """Do what a crash may have interrupted anywhere.

        Raises:
            discord.HTTPException, aiohttp.ClientError, OSError: if Discord does not answer.
        """
        channel = self._client.get_partial_messageable(job.channel_id, guild_id=guild.id)
        action, outcome = Action(entry.action), entry.outcome()
        try:
            message = await channel.fetch_message(job.message_id)
        except discord.NotFound:
            return await self._after_deletion(job, action, guild, policy, outcome)
        if action is Action.SPOILER and (repost := await self._find_repost(message)):
            result = await carry_out(message, Action.DELETE, outcome, policy, self._services.fetcher)
            await self._services.store.save_repost(guild.id, message.id, repost.id)
            done = Action.SPOILER if result.action is Action.DELETE else result.action
            return replace(result, action=done, repost_id=repost.id)
        return await carry_out(message, action, outcome, policy, self._services.fetcher)

    async def _after_deletion(
        self, job: Job, action: Action, guild: discord.Guild, policy: GuildPolicy, outcome: RuleOutcome
    ) -> ActionResult:
        if action is not Action.TIMEOUT or job.user_id is None:
            return ActionResult(action, "finished after a restart of the bot")
        try:
            member = guild.get_member(job.user_id) or await guild.fetch_member(job.user_id)
        except discord.NotFound:
            return ActionResult(Action.DELETE, "time-out failed: the author is not a member of this server")
        if member.is_timed_out():
            return ActionResult(action, "finished after a restart of the bot")
        failure = await time_out(member, policy, f"{outcome.label} {outcome.score:.2f}")
        return ActionResult(Action.DELETE if failure else action, failure or "finished after a restart of the bot")

    async def _find_repost(self, message: discord.Message) -> discord.Message | None:
        async for later in message.channel.history(limit=SEARCHED, after=message, oldest_first=True):
            if self._client.user and later.author.id == self._client.user.id and is_repost_of(later, message):
                return later
        return None


def _with_result(row: Decision | Retry, result: ActionResult) -> Decision | Retry:
    """A decision after the action. Pictures that matched no rule are not what it was done for."""
    if not isinstance(row, Decision) or not row.action:
        return row
    detail = "; ".join(filter(None, (row.detail, result.detail)))[:300]
    return replace(row, done=result.action, detail=detail, state=OPEN)
