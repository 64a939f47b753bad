"""The shield: one author's pictures in several channels are found, deleted everywhere, and told of once.

What counts is the pattern of posting, so nothing here waits for the model. Every step is in the database before the
next one begins: after a crash, the outbox finishes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord

from bot.actions import waves
from bot.actions.deleting import Deleter
from bot.actions.discord_calls import as_sentence
from bot.actions.evidence import NamedFile, fetch_evidence
from bot.actions.execution import allowed_action, time_out
from bot.actions.members import fetch_member, lift_time_out
from bot.actions.outbox import WAVE, Outbox
from bot.actions.review import NotCarriedOutError, author_in
from bot.actions.striking import strike
from bot.actions.telling import Teller
from bot.actions.waves import MAX_MESSAGES, WaveEntry
from bot.pictures.examining import Finding
from bot.pictures.references import Reference
from bot.rules.bursts import KEEP_SECONDS, BurstLimits, BurstTracker, PictureMarks, Posting
from bot.rules.policy import Action, GuildPolicy, Mode
from bot.rules.shield import describe_limits
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.tables import (
    ACTED,
    DELETED,
    LEFT,
    OPEN,
    PLANNED,
    POSTED,
    TIMED_OUT,
    UNDONE,
    Job,
    Wave,
    decisions,
)

log = logging.getLogger(__name__)

QUIET = 1.5
"""Seconds without another copy, after which the entry is posted or brought up to date."""
CLAIM_SECONDS = 1.0
"""Between two looks at a claim whose wave is not stored yet."""
LEASE = 15
"""Seconds for which a process has a wave to itself; then another one takes it for crashed."""
MAX_WAVES = 500
"""Waves that are remembered, not counting those in progress."""
MAX_KEPT = 2000
MAX_RECALLED = 20_000
STATES = {"delete": DELETED, "timeout": TIMED_OUT, "leave": LEFT, "undo": UNDONE}
"""State of a wave by a moderator's choice."""
PARTICIPLES = {DELETED: "deleted", TIMED_OUT: "deleted", LEFT: "left alone", UNDONE: "undone"}


class _Signal:
    """Tells everyone who waits that something has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await self._event.wait()


class _Wave:
    """A wave in progress."""

    def __init__(self, row: Wave, limits: BurstLimits, guild: discord.Guild, policy: GuildPolicy) -> None:
        self.row, self.limits, self.guild, self.policy = row, limits, guild, policy
        self.entry = WaveEntry.from_json(row.entry)
        self.author_id = row.user_id
        self.member: discord.Member | None = None
        self.job: Job | None = None
        self.known = {message for _, message in self.entry.messages}
        self.newest = max(self.known, default=0)
        self.pending: list[Posting] = []
        """Messages that are not in the database yet."""
        self.deleting: set[asyncio.Task[None]] = set()
        self.reason = f"shield: {self.entry.rule}"
        """For Discord's audit log."""
        self.moderator: discord.Member | None = None
        """Who decided to delete it."""
        self.pictures: asyncio.Task[list[NamedFile]] | None = None
        """What the entry shows."""
        self.running = self.claimed = self.foreign = False
        self.author_done = bool(self.entry.author_result)
        self.lock = asyncio.Lock()
        """Held by who acts on it."""
        self.changed = _Signal()

    @property
    def action(self) -> Action:
        return Action(self.entry.action)

    def continues(self, postings: Sequence[Posting]) -> bool:
        """Whether these messages belong to this wave, rather than to a later one."""
        start = postings[0].milliseconds - (self.newest >> 22)
        return any(each.message_id in self.known for each in postings) or start <= 1000 * self.limits.seconds

    def extend(self, postings: Iterable[Posting]) -> None:
        """Note messages."""
        for each in postings:
            if each.message_id not in self.known:
                self.known.add(each.message_id)
                self.newest = max(self.newest, each.message_id)
                self.pending.append(each)
        self.changed.fire()

    async def more(self) -> bool:
        """Wait for further copies. False if there are none for `QUIET`."""
        pause = asyncio.create_task(asyncio.sleep(QUIET))
        pause.add_done_callback(lambda _: self.changed.fire())
        await self.changed.until(lambda: self.pending or pause.done())
        pause.cancel()
        return bool(self.pending)


class Shield:
    """Finds waves and acts on them."""

    def __init__(self, services: Services, client: discord.Client, outbox: Outbox, teller: Teller) -> None:
        self._services = services
        self._client = client
        self._outbox = outbox
        self._teller = teller
        self._deleter = Deleter(client)
        self._tracker = BurstTracker()
        self._waves: OrderedDict[tuple[int, int], _Wave] = OrderedDict()
        """The latest wave by server and author."""
        self._kept: OrderedDict[int, None] = OrderedDict()
        """Messages that the bot itself is about to delete."""
        self._recalled: OrderedDict[tuple[int, int], None] = OrderedDict()
        """Authors whose messages of before the start were looked up."""
        self._started = time.monotonic()
        self.tasks: set[asyncio.Task[None]] = set()
        outbox.finish_wave = self.finish_job

    # Finding

    async def note(self, message: discord.Message, pictures: Sequence[Reference], policy: GuildPolicy) -> Action:
        """Count a message as it arrives, before its pictures are downloaded.

        Returns:
            What is done to it as a part of a wave, once that is in the database; LOG if it is no part of one.
        """
        if not self._applies(message, policy):
            return Action.LOG
        return await self._look(message, _first_marks(message, pictures), policy, pictures)

    async def learn(self, message: discord.Message, findings: Sequence[Finding], policy: GuildPolicy) -> Action:
        """Count a message by what is known of its pictures once they are decoded. Returns as `note`."""
        if not self._applies(message, policy):
            return Action.LOG
        marks = {
            finding.reference.key: PictureMarks(frozenset({finding.sha256}), finding.phash)
            for finding in findings
            if finding.sha256 and _counts(finding.reference)
        }
        return await self._look(message, marks, policy, [finding.reference for finding in findings])

    def _applies(self, message: discord.Message, policy: GuildPolicy) -> bool:
        author = message.author
        if not policy.shield.on or message.guild is None:
            return False
        if policy.shield.spare_moderators and isinstance(author, discord.Member):
            return not _permissions(author, message.channel).manage_messages
        return True

    async def _look(
        self,
        message: discord.Message,
        marks: Mapping[str, PictureMarks],
        policy: GuildPolicy,
        pictures: Sequence[Reference],
    ) -> Action:
        guild, author = message.guild, message.author
        assert guild is not None  # noqa: S101 - `_applies`
        key = guild.id, author.id
        await self._recall(guild, author, message.id, policy)
        if marks:
            posting = Posting(message.id, message.channel.id, marks)
            self._tracker.add(*key, posting, time.monotonic())
            limits = policy.shield.limits(getattr(author, "joined_at", None), message.created_at)
            # Only with this message: what was let pass before, under other settings, stays as it is.
            if postings := self._tracker.wave(*key, limits, message.id):
                wave = self._waves.get(key)
                # One that was only logged is over once the server's mode allows more.
                logged = wave is not None and wave.action is Action.LOG and policy.mode is not Mode.SHADOW
                if wave is None or logged or not wave.continues(postings):
                    wave = self._begin(guild, author, limits, policy)
                    if wave.action is not Action.LOG:  # now, for the copies are about to be deleted
                        shown = [picture for picture in pictures if picture.key in marks]
                        wave.pictures = asyncio.create_task(self._fetch_pictures(wave, shown))
                self._extend(wave, postings)
        wave = self._waves.get(key)
        if wave is None or message.id not in wave.known or wave.action is Action.LOG:
            return Action.LOG
        await wave.changed.until(
            lambda: not wave.running or not any(each.message_id == message.id for each in wave.pending)
        )
        return wave.action

    def _begin(
        self, guild: discord.Guild, author: discord.User | discord.Member, limits: BurstLimits, policy: GuildPolicy
    ) -> _Wave:
        shield = policy.shield
        action = allowed_action(Action.TIMEOUT if shield.time_out else Action.DELETE, guild, policy)
        entry = WaveEntry(rule=describe_limits(limits), action=int(action), minutes=shield.minutes)
        row = Wave(uuid.uuid4().hex, guild.id, author.id, entry.to_json(), self._services.store.now())
        wave = _Wave(row, limits, guild, policy)
        wave.member = author if isinstance(author, discord.Member) else None
        self._remember(wave)
        ids = {"guild_id": guild.id, "user_id": author.id, "wave": row.id, "action": action.name.lower()}
        log.info("a wave began", extra={**ids, "rule": entry.rule})
        self._services.metrics.actions.labels("wave", action.name.lower()).inc()
        return wave

    async def _fetch_pictures(self, wave: _Wave, pictures: Sequence[Reference]) -> list[NamedFile]:
        """What the entry shows: a blurred thumbnail, and the pictures themselves if the server keeps evidence."""
        thumbnail = await self._services.examiner.thumbnail(pictures[0], wave.guild.id, wave.author_id or 0)
        files = [("SPOILER_blurred-0.jpg", thumbnail)] if thumbnail else []
        if wave.policy.evidence and wave.action > Action.FLAG:
            files += await fetch_evidence(self._services.fetcher, pictures)
        return files

    def _remember(self, wave: _Wave) -> None:
        key = wave.guild.id, wave.author_id or 0
        self._waves[key] = wave
        self._waves.move_to_end(key)
        idle = [key for key, each in self._waves.items() if not each.running]
        for oldest in idle[: max(0, len(self._waves) - MAX_WAVES)]:
            del self._waves[oldest]

    def _extend(self, wave: _Wave, postings: Sequence[Posting]) -> None:
        """Note messages of a wave, and see that a task acts on them."""
        wave.extend(postings)
        if wave.action is Action.LOG or wave.foreign or wave.row.state in (LEFT, UNDONE):
            wave.pending.clear()  # they are only counted
        elif wave.pending and not wave.running:
            wave.running = True
            task = asyncio.create_task(self._run(wave))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _recall(
        self, guild: discord.Guild, author: discord.User | discord.Member, message_id: int, policy: GuildPolicy
    ) -> None:
        """Look up an author's messages of before the start, as far as they may be of the same wave."""
        key = guild.id, author.id
        if key in self._recalled or time.monotonic() - self._started > KEEP_SECONDS:
            return
        self._recalled[key] = None
        while len(self._recalled) > MAX_RECALLED:
            self._recalled.popitem(last=False)
        posted = discord.utils.snowflake_time(message_id)
        since = discord.utils.time_snowflake(posted - timedelta(seconds=KEEP_SECONDS))
        store = self._services.store
        try:
            mine = (decisions.c.guild_id == guild.id) & (decisions.c.user_id == author.id)
            rows = await store.decisions(mine, decisions.c.message_id >= since, limit=200)
            recent = discord.utils.time_snowflake(posted - timedelta(seconds=policy.shield.seconds))
            claimed = await store.claimed_wave(*key, recent)
            row = await store.wave(claimed) if claimed else None
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
            self._recalled.pop(key, None)
            return
        for each in rows:
            if each.sha256:
                marks = {each.picture: PictureMarks(frozenset({each.sha256}), each.phash)}
                self._tracker.add(*key, Posting(each.message_id, each.channel_id, marks), time.monotonic())
        if row is not None and key not in self._waves:
            wave = self._adopt(replace(row, user_id=author.id), guild, policy)
            marks = {str(place): marks for place, marks in enumerate(wave.entry.picture_marks())}
            for channel, message in wave.entry.messages:
                self._tracker.add(*key, Posting(message, channel, marks), time.monotonic())
            self._remember(wave)

    def _adopt(self, row: Wave, guild: discord.Guild, policy: GuildPolicy) -> _Wave:
        """A wave of an earlier process."""
        wave = _Wave(row, policy.shield.limits(None, discord.utils.utcnow()), guild, policy)
        wave.claimed = True
        return wave

    def keep(self, message_id: int) -> None:
        """Count a message even after it is deleted, because the bot does that."""
        self._kept[message_id] = None
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def removed(self, messages: Iterable[int]) -> None:
        """Messages were deleted. What an author took back by themselves does not count."""
        for message in messages:
            wave = self._waves.get(self._tracker.owner(message))
            if message not in self._kept and (wave is None or message not in wave.known):
                self._tracker.remove([message])

    def expire(self) -> None:
        """Forget what is too old to matter."""
        self._tracker.expire(time.monotonic())

    # Acting

    async def _run(self, wave: _Wave, again: bool = False) -> None:
        """Act on a wave until no more copies come, and tell the moderators. `again`: after a crash."""
        try:
            async with wave.lock:
                if await self._claim(wave):
                    await self._act_and_tell(wave, again)
        except Exception:
            self._services.metrics.errors.labels("shield").inc()
            log.exception("could not finish a wave", extra={"wave": wave.row.id})
        finally:
            wave.running = False
            wave.changed.fire()

    async def _act_and_tell(self, wave: _Wave, again: bool) -> None:
        told = False
        while wave.pending or not told:
            if wave.row.state in (LEFT, UNDONE):  # a moderator was faster
                wave.pending.clear()
                return
            await self._act(wave)
            if again or not await wave.more():  # what was late enough for a crash has come by now
                await self._tell(wave, again)
                told = True

    async def _claim(self, wave: _Wave) -> bool:
        """Claim a wave among all processes. False if another one acts on it."""
        if wave.claimed or wave.author_id is None:
            return True
        first = min((each.message_id for each in wave.pending), default=wave.newest)
        span = timedelta(seconds=wave.limits.seconds)
        oldest = discord.utils.time_snowflake(discord.utils.snowflake_time(first) - span)
        store = self._services.store
        try:
            while True:
                claimed = await store.claim_wave(wave.guild.id, wave.author_id, wave.row.id, oldest, wave.newest)
                if claimed == wave.row.id or await store.wave(claimed) is not None:
                    break
                await asyncio.sleep(CLAIM_SECONDS)  # its process is about to store it, or has ended
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
            return True  # moderation goes on without a database
        wave.claimed = claimed == wave.row.id
        if not wave.claimed:
            wave.foreign = True
            wave.pending.clear()
        return wave.claimed

    async def _act(self, wave: _Wave) -> None:
        """Delete the copies that are known and those that come meanwhile, and time their author out."""
        while wave.pending or wave.deleting:
            if wave.pending:
                batch = await self._plan(wave)
                if wave.action > Action.FLAG:
                    for posting in batch:
                        self._start(wave, self._delete(wave, posting.channel_id, posting.message_id))
                if wave.action is Action.TIMEOUT and not wave.author_done:
                    wave.author_done = True
                    self._start(wave, self._time_out(wave))
            await wave.changed.until(lambda: wave.pending or not wave.deleting)

    def _start(self, wave: _Wave, work: Coroutine[Any, Any, None]) -> None:
        async def watched() -> None:
            try:
                await work
            except Exception:  # the others are deleted all the same
                self._services.metrics.errors.labels("shield").inc()
                log.exception("could not act on a wave", extra={"wave": wave.row.id})
            finally:
                wave.deleting.discard(task)
                wave.changed.fire()

        task = asyncio.create_task(watched())
        wave.deleting.add(task)

    async def _plan(self, wave: _Wave) -> list[Posting]:
        """Write down the messages that are to be deleted, before any of them is. Returns them."""
        batch, listed = list(wave.pending), {message for _, message in wave.entry.messages}
        for each in batch:
            wave.entry.add_marks(list(each.pictures.values()))
            if each.message_id not in listed and len(listed) < MAX_MESSAGES:
                wave.entry.messages.append([each.channel_id, each.message_id])
        await self._store(wave, PLANNED)
        try:
            await self._services.store.extend_claim(wave.row.id, wave.newest)
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
        wave.pending = wave.pending[len(batch) :]
        wave.changed.fire()
        return batch

    async def _store(self, wave: _Wave, state: str) -> None:
        """Store a wave and how far it is."""
        now = self._services.store.now()
        wave.row = replace(wave.row, entry=wave.entry.to_json())
        # A new one for copies that come after the entry was posted.
        job = wave.job or Job(
            id=uuid.uuid4().hex,
            guild_id=wave.guild.id,
            channel_id=wave.entry.messages[0][0],
            message_id=wave.entry.messages[0][1],
            user_id=wave.author_id,
            state=PLANNED,
            tries=0,
            due_at=now,
            entry={WAVE: wave.row.id},
            created_at=now,
        )
        wave.job = replace(job, state=state, due_at=now + LEASE)
        await self._services.store.record(wave.row, wave.job)
        if state == POSTED:
            wave.job = None

    async def _delete(self, wave: _Wave, channel_id: int, message_id: int) -> None:
        failure = await self._deleter.delete(wave.guild, channel_id, message_id, wave.reason)
        wave.entry.failed.pop(str(message_id), None)
        if failure:
            wave.entry.failed[str(message_id)] = failure

    async def _time_out(self, wave: _Wave) -> None:
        entry, member, failure = wave.entry, wave.member, ""
        if member is None:
            member, failure = await fetch_member(wave.guild, wave.author_id)
        if member is None:
            entry.author_result = f"time-out failed: {failure}"
            return
        by = wave.moderator
        if by is not None and member.top_role >= by.top_role and wave.guild.owner_id != by.id:
            entry.author_result = "time-out failed: the author's role ranks as high as yours"
            return
        if not member.is_timed_out():  # after a crash it may be
            failure = await time_out(member, replace(wave.policy, timeout_minutes=entry.minutes), wave.reason)
        entry.timed_out = not failure
        entry.author_result = failure or f"author timed out for {entry.minutes} minutes"

    async def _tell(self, wave: _Wave, again: bool = False) -> None:
        """Post the entry, or bring it up to date."""
        deleted = wave.action > Action.FLAG and len(wave.entry.failed) < len(wave.entry.messages)
        if deleted and not wave.entry.strike and wave.row.state != UNDONE:  # once, however many copies come later
            first = wave.entry.messages[0][1]
            wave.entry.strike = await strike(
                self._services, wave.guild, wave.policy, wave.author_id, first, wave.reason
            )
        await self._store(wave, ACTED)
        pictures = await wave.pictures if wave.pictures else []
        wave.entry.entry_id, failure = await waves.tell(wave.row, wave.guild, wave.policy, pictures, again)
        if failure:
            assert wave.job is not None  # noqa: S101 - `_store`
            await self._outbox.report_failure(wave.job, wave.policy, failure)
            wave.job = None
        else:
            await self._store(wave, POSTED)
        await self._teller.check_modlog(wave.guild, wave.policy)

    async def finish_job(self, job: Job, guild: discord.Guild) -> None:
        """Finish what an earlier process began, or what Discord did not take.

        Raises:
            StoreError: if the database is away.
        """
        store = self._services.store
        row = await store.wave(job.entry[WAVE])
        current = self._waves.get((guild.id, job.user_id or 0))
        if row is not None and current is not None and current.row.id == row.id and current.running:
            return  # this process is at it
        if row is None or row.state in (LEFT, UNDONE):
            await store.record(replace(job, state=POSTED))
            return
        wave = self._adopt(replace(row, user_id=row.user_id or job.user_id), guild, await store.policy(guild.id))
        wave.job, wave.running = job, True
        if job.state == PLANNED:
            wave.pending = [Posting(message, channel) for channel, message in wave.entry.messages]
        self._remember(wave)
        self._services.metrics.recovered.labels("entry", "posted").inc()
        await self._run(wave, again=True)

    # Deciding

    async def decide(self, wave_id: str, choice: str, moderator: discord.Member, entry: discord.Message | None) -> None:
        """Carry out a moderator's choice, once.

        Args:
            wave_id: the wave.
            choice: a key of `STATES`.
            moderator: who clicked.
            entry: with the button.

        Raises:
            NotCarriedOutError: if it is not the clicker's to make, was made already, or Discord refuses.
            StoreError: if the database is away.
        """
        store, guild = self._services.store, moderator.guild
        row = await store.wave(wave_id)
        if row is None or row.guild_id != guild.id:
            raise NotCarriedOutError("there is no record of this wave any more")
        # Of an author who had their data deleted, only the entry still has the id.
        author_id = row.user_id or author_in(entry)
        wave = self._waves.get((guild.id, author_id or 0))
        if wave is None or wave.row.id != wave_id:
            wave = self._adopt(replace(row, user_id=author_id), guild, await store.policy(guild.id))
        if missing := _missing_for(moderator, wave.entry, choice):
            raise NotCarriedOutError(f"you need the {missing}")
        state = STATES[choice]
        async with wave.lock:
            # Claimed before anything is done: of two moderators who click at once, one gets False here.
            if not await store.settle_wave(wave_id, state, moderator.id):
                decided = await store.wave(wave_id)
                done = PARTICIPLES.get(decided.state, decided.state) if decided else "deleted"
                raise NotCarriedOutError(f"already {done} by <@{decided.moderator_id if decided else 0}>")
            wave.row = replace(wave.row, state=state, moderator_id=moderator.id)
            wave.entry.decision = as_sentence(f"{PARTICIPLES[state]} by {moderator.mention}")
            if state in (DELETED, TIMED_OUT):
                await self._delete_all(wave, moderator, state)
            elif state == UNDONE:
                await self._undo(wave, moderator)
            log.info("a moderator decided", extra={"wave": wave_id, "state": state, "moderator": moderator.id})
            await self._tell(wave)
            await store.drop_forgotten_wave(wave_id)

    async def _delete_all(self, wave: _Wave, moderator: discord.Member, state: str) -> None:
        wave.entry.action = int(Action.TIMEOUT if state == TIMED_OUT else Action.DELETE)
        wave.moderator, wave.reason = moderator, f"shield: deleted by {moderator}"
        waiting = {each.message_id for each in wave.pending}
        wave.pending += [
            Posting(message, channel) for channel, message in wave.entry.messages if message not in waiting
        ]
        await self._act(wave)
        if len(wave.entry.failed) == len(wave.entry.messages):
            failure = next(iter(wave.entry.failed.values()))
            wave.entry.action, wave.entry.decision, wave.entry.author_result = int(Action.FLAG), "", ""
            wave.entry.failed.clear()
            wave.author_done = wave.entry.timed_out
            wave.row = replace(wave.row, state=OPEN, moderator_id=None)
            await self._services.store.reopen_wave(wave.row.id)
            await self._store(wave, POSTED)
            raise NotCarriedOutError(failure)

    async def _undo(self, wave: _Wave, moderator: discord.Member) -> None:
        """Lift the time-out, and count the author's pictures anew. What is deleted stays deleted."""
        store, notes = self._services.store, []
        if wave.entry.timed_out:
            member, failure = await fetch_member(wave.guild, wave.author_id)
            if member is None:
                notes.append(f"the time-out could not be lifted: {failure}")
            elif member.is_timed_out():
                notes.append(await lift_time_out(member, f"shield: undone by {moderator}"))
        wave.entry.decision += "".join(
            f" {as_sentence(note)}" for note in [*notes, "deleted messages cannot be restored"]
        )
        await store.drop_strike(wave.guild.id, wave.entry.messages[0][1])
        await store.release_claim(wave.row.id)
        if wave.author_id:
            self._tracker.forget(wave.guild.id, wave.author_id)
            self._waves.pop((wave.guild.id, wave.author_id), None)


def _missing_for(moderator: discord.Member, entry: WaveEntry, choice: str) -> str:
    """The permission that a moderator lacks to make a choice, or nothing."""
    if choice in ("timeout", "undo") and not moderator.guild_permissions.moderate_members:
        return "Moderate Members permission"
    # In every channel, where the moderator could delete the messages by hand; some may be gone by now.
    for channel_id in dict.fromkeys(channel for channel, _ in entry.messages):
        if not _permissions(moderator, moderator.guild.get_channel_or_thread(channel_id)).manage_messages:
            return f"Manage Messages permission in <#{channel_id}>"
    return ""


def _permissions(member: discord.Member, channel: object) -> discord.Permissions:
    """What a member may do in a channel; of a thread whose channel is not known, in the server."""
    known = isinstance(channel, discord.abc.GuildChannel) or (
        isinstance(channel, discord.Thread) and channel.parent is not None
    )
    return channel.permissions_for(member) if known else member.guild_permissions  # type: ignore[attr-defined]


def _counts(reference: Reference) -> bool:
    """Whether a picture counts. Stickers and emoji do not: members post the same ones everywhere."""
    return not reference.kind.endswith(("sticker", "emoji"))


def _first_marks(message: discord.Message, pictures: Sequence[Reference]) -> dict[str, PictureMarks]:
    """What is known of a message's pictures before they are downloaded: a file's name and size, a link."""
    attachments = [*message.attachments, *(each for part in message.message_snapshots for each in part.attachments)]
    # Discord's own claims, so that a text file is none; what they miss comes with the decoded picture.
    displayed = {
        f"attachment:{each.id}"
        for each in attachments
        if each.width or (each.content_type or "").startswith(("image/", "video/"))
    }
    marks = {}
    for picture in filter(_counts, pictures):
        if picture.kind.endswith("attachment"):
            if picture.key in displayed:
                name = picture.name.removeprefix("SPOILER_")
                marks[picture.key] = PictureMarks(frozenset({f"{picture.size} {name}"}))
        else:
            marks[picture.key] = PictureMarks(frozenset({picture.key}))
    return marks
