"""What the bot stores: servers' policies, decisions, moderators' rulings, scores. Never pictures."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, false, func, or_, select, update

from bot.rules.policy import GuildPolicy
from bot.storage import tables
from bot.storage.database import BotDatabase, Row, StoreError
from bot.storage.tables import (
    APPROVED,
    OPEN,
    POSTED,
    WRONG,
    Decision,
    Job,
    PictureScores,
    Retry,
    Ruling,
    Wave,
    appeals,
    channels,
    decisions,
    fingerprints,
    guilds,
    meta,
    outbox,
    policies,
    reposts,
    retries,
    rulings,
    scores,
    strikes,
    subscriptions,
    wave_claims,
    waves,
)

CACHED = 2_000
"""Scores, and policies, kept in memory."""
PAGE = 200
"""Decisions that are read at a time."""
MAX_DUE = 64
"""Rows of work that one round takes up."""
ABANDONED = 5
"""Seconds after which a claim is void whose wave is not stored."""
SWEPT = (decisions, rulings, scores, retries, outbox, reposts, waves, strikes, appeals, fingerprints)
"""Tables whose rows end with the retention."""
MODLOG, RULES = "modlog", "rules"
"""Subjects of notices: a mod-log that cannot be used, rules that no longer apply."""
FIND_SCORES = select(scores).where(scores.c.sha256 == bindparam("sha"), scores.c.md5 == bindparam("model"))
"""Built once: building a statement takes longer than running it."""


class BotStore(BotDatabase):
    """The bot's tables, with a cache of policies and scores in front of them."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url)
        self._clock = clock
        self._policies: OrderedDict[int, GuildPolicy] = OrderedDict()
        self._scores: OrderedDict[tuple[str, str], PictureScores] = OrderedDict()
        self._changing = asyncio.Lock()

    def now(self) -> int:
        """Unix time, in s."""
        return int(self._clock())

    # Policies

    async def policy(self, guild: int) -> GuildPolicy:
        """A server's settings.

        Raises:
            StoreError: if they are not in memory and the database is away.
        """
        # Other processes serve other guilds, so this one's copy cannot become outdated.
        if guild not in self._policies:
            rows = await self.query(select(policies.c.policy).where(policies.c.guild_id == guild))
            _remember(self._policies, guild, GuildPolicy.from_json(rows[0]["policy"]) if rows else GuildPolicy())
        return self._policies[guild]

    async def set_policy(self, guild: int, policy: GuildPolicy) -> None:
        """Replace a server's settings.

        Raises:
            StoreError: if the database is away; the settings stay unchanged.
        """
        await self.upsert(policies, {"guild_id": guild, "policy": policy.to_json()})
        _remember(self._policies, guild, policy)

    async def change_policy(self, guild: int, change: Callable[[GuildPolicy], GuildPolicy]) -> GuildPolicy:
        """Replace a server's settings by what `change` makes of them. Of two changes at once, none is lost.

        Raises:
            StoreError: if the database is away; the settings stay unchanged.
        """
        async with self._changing:
            policy = change(await self.policy(guild))
            await self.set_policy(guild, policy)
        return policy

    # Scores

    async def find_scores(self, sha256: str, md5: str) -> PictureScores | None:
        """The scores that the model `md5` gave a picture before. None if there are none, or the database is away."""
        if (sha256, md5) not in self._scores:
            try:
                rows = await self.query(FIND_SCORES, {"sha": sha256, "model": md5})
            except StoreError:
                return None
            if not rows:
                return None
            row = dict(rows[0])
            _remember(self._scores, (sha256, md5), PictureScores(**{**row, "phash": tables.unsigned(row["phash"])}))
        return self._scores[sha256, md5]

    async def save_scores(self, scored: PictureScores) -> None:
        """Store a model's scores of a picture."""
        _remember(self._scores, (scored.sha256, scored.md5), scored)
        row = replace(scored, phash=tables.signed(scored.phash), created_at=self.now())
        await self.append((scores, asdict(row)))

    # Decisions

    async def record(self, *rows: Decision | Retry | Job | Wave) -> None:
        """Store decisions and what follows from them, all in one transaction, now or once the database is back.

        The first verdict on a picture of a message stays. Before it there may be a decision of origin `unjudged`.
        """
        await self.append(*map(_as_row, rows))

    async def decisions_on(self, message: int) -> dict[str, Decision]:
        """Picture key -> decision on it, for one message; empty if the database is away."""
        try:
            return {row.picture: row for row in await self.decisions(decisions.c.message_id == message)}
        except StoreError:
            return {}

    async def decisions(self, *conditions: Any, limit: int = 1000) -> list[Decision]:
        """Decisions, newest first.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # the newest ones may still be in the backlog
        found: list[Decision] = []
        page = PAGE
        while len(found) < limit and page == PAGE:
            # Page by page: the event loop goes on in between. Rows of a page come after the last one's.
            after = []
            if found:
                last = found[-1]
                same_time = (decisions.c.created_at == last.created_at) & (decisions.c.id > last.id)
                after = [or_(decisions.c.created_at < last.created_at, same_time)]
            chosen = select(decisions).where(*conditions, *after)
            ordered = chosen.order_by(decisions.c.created_at.desc(), decisions.c.id)
            rows = await self.query(ordered.limit(min(PAGE, limit - len(found))))
            found += map(_as_decision, rows)
            page = len(rows)
        return found

    async def settle(
        self, message: int, state: str, moderator: int | None, pictures: Collection[str] | None = None
    ) -> bool:
        """Set the state of open decisions on `pictures` of a message, or on all.

        False if another moderator was faster, or there are none.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        # One statement: the database decides which of two moderators, or processes, was first.
        statement = update(decisions).where(*_of_pictures(message, pictures), decisions.c.state == OPEN)
        return bool(await self.execute(statement.values(state=state, moderator_id=moderator, decided_at=self.now())))

    async def overturn(self, message: int, moderator: int) -> list[Decision]:
        """Mark the decisions on a message's pictures that matched a rule as wrong, also those that a moderator made.

        Returns these decisions.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        matched = (decisions.c.message_id == message) & (decisions.c.action > 0)
        values = {"state": WRONG, "moderator_id": moderator, "decided_at": self.now()}
        await self.execute(update(decisions).where(matched).values(values))
        return await self.decisions(matched)

    async def reopen(self, message: int, state: str, pictures: Collection[str] | None = None) -> None:
        """Undo `settle`, because the action failed.

        Raises:
            StoreError: if the database is away.
        """
        statement = update(decisions).where(*_of_pictures(message, pictures), decisions.c.state == state)
        await self.execute(statement.values(state=OPEN, moderator_id=None, decided_at=None))

    # Reposts

    async def save_repost(self, guild: int, message: int, repost: int) -> None:
        """Store the id of the bot's message that replaced another one."""
        row = {"message_id": message, "guild_id": guild, "repost_id": repost, "created_at": self.now()}
        await self.append((reposts, row))

    async def repost_of(self, message: int) -> int | None:
        """The id of the bot's message that replaced another one.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # it may still be in the backlog
        rows = await self.query(select(reposts.c.repost_id).where(reposts.c.message_id == message))
        return int(rows[0]["repost_id"]) if rows else None

    # Rulings

    async def rulings(self, guild: int, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Ruling]:
        """Moderators' rulings on pictures in a server, newest first.

        Raises:
            StoreError: if the database is away.
        """
        found: list[Ruling] = []
        page = PAGE
        while page == PAGE and (limit is None or len(found) < limit):
            # Page by page: the event loop goes on in between.
            after = []
            if found:
                last = found[-1]
                same_time = (rulings.c.created_at == last.created_at) & (rulings.c.sha256 > last.sha256)
                after = [or_(rulings.c.created_at < last.created_at, same_time)]
            chosen = select(rulings).where(rulings.c.guild_id == guild, *conditions, *after)
            ordered = chosen.order_by(rulings.c.created_at.desc(), rulings.c.sha256)
            rows = await self.query(ordered.limit(PAGE if limit is None else min(PAGE, limit - len(found))))
            found += [Ruling(**{**row, "phash": tables.unsigned(row["phash"])}) for row in rows]
            page = len(rows)
        return found

    async def count_rulings(self, guild: int) -> tuple[int, int]:
        """How many rulings a server has, and when the newest was made.

        Raises:
            StoreError: if the database is away.
        """
        counted = select(func.count(), func.max(rulings.c.created_at)).where(rulings.c.guild_id == guild)
        (row,) = await self.query(counted)
        count, newest = row.values()
        return int(count), int(newest or 0)

    async def save_ruling(self, ruling: Ruling) -> None:
        """Store a moderator's ruling on a picture. It replaces an earlier one.

        Raises:
            StoreError: if the database is away.
        """
        await self.upsert(rulings, asdict(replace(ruling, phash=tables.signed(ruling.phash))))

    async def add_rulings(self, added: Iterable[Ruling]) -> None:
        """Store rulings on pictures that have none. Those that have one keep it.

        Raises:
            StoreError: if the database is away.
        """
        await self.append(*((rulings, asdict(replace(each, phash=tables.signed(each.phash)))) for each in added))
        if not await self.flush():
            raise StoreError("the database does not answer; the list is stored once it is back")

    async def known_rulings(self, guild: int, pictures: Collection[str]) -> set[str]:
        """Which of these pictures, by SHA-256, a server has decided on.

        Raises:
            StoreError: if the database is away.
        """
        known: set[str] = set()
        listed = sorted(pictures)
        for start in range(0, len(listed), PAGE):
            chosen = rulings.c.sha256.in_(listed[start : start + PAGE])
            rows = await self.query(select(rulings.c.sha256).where(rulings.c.guild_id == guild, chosen))
            known |= {str(row["sha256"]) for row in rows}
        return known

    async def delete_ruling(self, guild: int, sha256: str) -> bool:
        """Forget a ruling. False if there is none.

        Raises:
            StoreError: if the database is away.
        """
        chosen = (rulings.c.guild_id == guild) & (rulings.c.sha256 == sha256)
        return bool(await self.execute(delete(rulings).where(chosen)))

    async def count_meeting(self, guild: int, sha256: str) -> None:
        """Note that a picture with a ruling was posted again.

        Raises:
            StoreError: if the database is away.
        """
        chosen = (rulings.c.guild_id == guild) & (rulings.c.sha256 == sha256)
        await self.execute(update(rulings).where(chosen).values(met=rulings.c.met + 1, met_at=self.now()))

    async def save_fingerprint(self, sha256: str, fingerprint: bytes) -> None:
        """Keep what recognises a picture until a moderator decides on it."""
        row = {"sha256": sha256, "fingerprint": fingerprint, "created_at": self.now()}
        await self.append((fingerprints, row))

    async def find_fingerprint(self, sha256: str) -> bytes | None:
        """What recognises a picture that waited for a decision.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # it may still be in the backlog
        rows = await self.query(select(fingerprints.c.fingerprint).where(fingerprints.c.sha256 == sha256))
        return bytes(rows[0]["fingerprint"]) if rows else None

    async def subscriptions(self, guild: int) -> list[str]:
        """The lists that a server follows, oldest first.

        Raises:
            StoreError: if the database is away.
        """
        chosen = select(subscriptions.c.list).where(subscriptions.c.guild_id == guild)
        rows = await self.query(chosen.order_by(subscriptions.c.created_at, subscriptions.c.list))
        return [str(row["list"]) for row in rows]

    async def save_subscription(self, guild: int, name: str, on: bool) -> None:
        """Begin or cease to follow a list.

        Raises:
            StoreError: if the database is away.
        """
        chosen = (subscriptions.c.guild_id == guild) & (subscriptions.c.list == name)
        await self.execute(delete(subscriptions).where(chosen))
        if on:
            await self.upsert(subscriptions, {"guild_id": guild, "list": name, "created_at": self.now()})

    # Waves

    async def claim_wave(self, guild: int, user: int, wave: str, oldest: int, newest: int) -> str:
        """Claim a wave of an author. Returns its id, or that of the wave in progress, whoever claimed it.

        Args:
            guild: server id.
            user: author's id.
            wave: id of the new wave.
            oldest: a wave whose newest message is older than this id is over.
            newest: id of the new wave's newest message.

        Raises:
            StoreError: if the database is away.
        """
        row = {"guild_id": guild, "user_id": user, "wave_id": wave, "message_id": newest, "created_at": self.now()}
        # A process that ends between its claim and its plan leaves a claim of no wave.
        abandoned = (wave_claims.c.created_at < self.now() - ABANDONED) & wave_claims.c.wave_id.not_in(
            select(waves.c.id)
        )
        await self.execute(
            delete(wave_claims).where(wave_claims.c.guild_id == guild, wave_claims.c.user_id == user, abandoned)
        )
        # One statement: the database decides which of two processes was first.
        await self.upsert(wave_claims, row, lambda old: old.message_id < oldest)
        return await self.claimed_wave(guild, user, oldest) or wave

    async def claimed_wave(self, guild: int, user: int, oldest: int) -> str | None:
        """The id of the wave of an author in progress. `oldest`: as for `claim_wave`.

        Raises:
            StoreError: if the database is away.
        """
        of_author = (wave_claims.c.guild_id == guild) & (wave_claims.c.user_id == user)
        rows = await self.query(select(wave_claims.c.wave_id).where(of_author, wave_claims.c.message_id >= oldest))
        return str(rows[0]["wave_id"]) if rows else None

    async def extend_claim(self, wave: str, newest: int) -> None:
        """Note a newer message of a wave.

        Raises:
            StoreError: if the database is away.
        """
        older = (wave_claims.c.wave_id == wave) & (wave_claims.c.message_id < newest)
        await self.execute(update(wave_claims).where(older).values(message_id=newest))

    async def release_claim(self, wave: str) -> None:
        """End a wave: its author's next pictures are counted anew.

        Raises:
            StoreError: if the database is away.
        """
        await self.execute(delete(wave_claims).where(wave_claims.c.wave_id == wave))

    async def wave(self, wave: str) -> Wave | None:
        """A wave by its id.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # it may still be in the backlog
        rows = await self.query(select(waves).where(waves.c.id == wave))
        return Wave(**rows[0]) if rows else None

    async def settle_wave(self, wave: str, state: str, moderator: int) -> bool:
        """Set the state of an open wave. False if another moderator was faster, or there is none.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        statement = update(waves).where(waves.c.id == wave, waves.c.state == OPEN)
        return bool(await self.execute(statement.values(state=state, moderator_id=moderator, decided_at=self.now())))

    async def reopen_wave(self, wave: str) -> None:
        """Undo `settle_wave`, because the action failed.

        Raises:
            StoreError: if the database is away.
        """
        statement = update(waves).where(waves.c.id == wave)
        await self.execute(statement.values(state=OPEN, moderator_id=None, decided_at=None))

    async def drop_forgotten_wave(self, wave: str) -> None:
        """Delete a decided wave whose author had their data deleted.

        Raises:
            StoreError: if the database is away.
        """
        await self.execute(delete(waves).where(waves.c.id == wave, waves.c.user_id.is_(None), waves.c.state != OPEN))

    # Strikes

    async def add_strike(self, guild: int, user: int, message: int, days: int) -> int:
        """Count the deletion of a message against its author, once. Returns their strikes of the last `days`.

        Deletions that moderators found wrong do not count.

        Raises:
            StoreError: if the database is away.
        """
        row = {"guild_id": guild, "message_id": message, "user_id": user, "created_at": self.now()}
        await self.upsert(strikes, row, lambda _: false())
        of_message = decisions.c.message_id == strikes.c.message_id
        wrong, acted_on = decisions.c.state.in_((APPROVED, WRONG)), decisions.c.action > 0
        undone = exists().where(of_message, wrong) & ~exists().where(of_message, acted_on, ~wrong)
        counted = select(func.count()).select_from(strikes)
        of_user = (strikes.c.guild_id == guild) & (strikes.c.user_id == user)
        rows = await self.query(counted.where(of_user, strikes.c.created_at > self.now() - days * 86400, ~undone))
        return int(rows[0]["count_1"])

    async def drop_strike(self, guild: int, message: int) -> None:
        """Take a strike back.

        Raises:
            StoreError: if the database is away.
        """
        await self.execute(delete(strikes).where(strikes.c.guild_id == guild, strikes.c.message_id == message))

    # Work that outlives the process

    async def due_jobs(self, guild_ids: Collection[int]) -> list[Job]:
        """What is not yet done or reported in these servers, and due, oldest first.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # a job in the backlog may be finished by now
        due = (outbox.c.state != POSTED) & (outbox.c.due_at <= self.now()) & outbox.c.guild_id.in_(guild_ids)
        rows = await self.query(select(outbox).where(due).order_by(outbox.c.created_at, outbox.c.id).limit(MAX_DUE))
        return [Job(**row) for row in rows]

    async def due_retries(self, guild_ids: Collection[int]) -> list[Retry]:
        """The pictures of these servers to be looked at again: in turn by server, and by author within each.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        due = select(retries).where(retries.c.due_at <= self.now(), retries.c.guild_id.in_(guild_ids))
        by_author = due.add_columns(_rank((retries.c.guild_id, retries.c.user_id), retries.c.due_at, "turn")).subquery()
        by_guild = select(by_author, _rank((by_author.c.guild_id,), by_author.c.turn, "place")).subquery()
        columns = [by_guild.c[column.name] for column in retries.columns]
        rows = await self.query(select(*columns).order_by(by_guild.c.place, by_guild.c.due_at).limit(MAX_DUE))
        return [Retry(**row) for row in rows]

    async def postpone(self, message: int, tries: int, due_at: int) -> None:
        """Note another try for the waiting pictures of a message, before it is made.

        Raises:
            StoreError: if the database is away.
        """
        await self.execute(update(retries).where(retries.c.message_id == message).values(tries=tries, due_at=due_at))

    async def drop_retries(self, message: int, pictures: Collection[str] | None = None) -> int:
        """Stop waiting for a verdict on these pictures of a message, or on all. Returns their number.

        Raises:
            StoreError: if the database is away.
        """
        chosen = retries.c.message_id == message
        if pictures is not None:
            chosen &= retries.c.picture.in_(list(pictures))
        return await self.execute(delete(retries).where(chosen))

    async def positions(self, guild: int) -> dict[int, int]:
        """Channel id -> id of the message up to which a server's channels were checked.

        Raises:
            StoreError: if the database is away.
        """
        rows = await self.query(select(channels).where(channels.c.guild_id == guild))
        return {row["channel_id"]: row["message_id"] for row in rows}

    async def save_positions(self, positions: Iterable[tuple[int, int, int]]) -> None:
        """Store positions as (server, channel, message), now or once the database is back."""
        names = ("guild_id", "channel_id", "message_id")
        await self.append(*((channels, dict(zip(names, position, strict=True))) for position in positions))

    # Retention and privacy

    async def sweep(self, days: int) -> int:
        """Delete rows older than `days`, including open decisions. Returns their number.

        Raises:
            StoreError: if the database is away.
        """
        before = self.now() - days * 86400
        # What was reported is of no more use; a day later nobody asks about a doubled entry.
        await self.execute(delete(outbox).where(outbox.c.state == POSTED, outbox.c.created_at < self.now() - 86400))
        await self.execute(delete(wave_claims).where(wave_claims.c.created_at < self.now() - 86400))
        return sum(
            [
                await self.execute(delete(table).where(table.c.created_at < before))
                for table in (
                    decisions,
                    rulings,
                    scores,
                    retries,
                    outbox,
                    reposts,
                    waves,
                    strikes,
                    appeals,
                    fingerprints,
                )
            ]
        )

    async def sweep_guilds(self, days: int, present: Collection[int]) -> int:
        """Delete what is stored of servers that the bot left more than `days` ago. Returns the number of servers.

        Args:
            days: retention period.
            present: the servers that this process serves now.

        Raises:
            StoreError: if the database is away.
        """
        now = self.now()
        known = {row["guild_id"] for row in await self.query(select(guilds.c.guild_id))}
        stored = {row["guild_id"] for row in await self.query(select(policies.c.guild_id))}
        # Those that were left while no process ran have no row yet: their time begins now.
        seen = sorted({*present, *(stored - known)})
        await self.append(*((guilds, {"guild_id": guild, "seen_at": now}) for guild in seen))
        left = await self.query(select(guilds.c.guild_id).where(guilds.c.seen_at < now - days * 86400))
        for row in left:
            await self.forget_guild(row["guild_id"])
        return len(left)

    async def forget_user(self, user: int, guild: int | None = None) -> int:
        """Delete a user's decisions and appeals, in one server or in all. Returns the number of rows.

        Decisions and waves that wait for review stay without the user's id, until `drop_forgotten`. Strikes stay while
        they count, or a user would have them taken back; a server's managers may do that.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # a row in the backlog would come back later
        of_user = decisions.c.user_id == user
        if guild is not None:
            of_user &= decisions.c.guild_id == guild
        for table in (retries, outbox):
            mine = table.c.user_id == user
            if table is outbox:  # what is not reported yet still needs the name
                mine &= outbox.c.state == POSTED
            if guild is not None:
                mine &= table.c.guild_id == guild
            await self.execute(update(table).where(mine).values(user_id=None))
        ruled = rulings.c.moderator_id == user
        if guild is not None:
            ruled &= rulings.c.guild_id == guild
        await self.execute(update(rulings).where(ruled).values(moderator_id=None))
        appealed = appeals.c.user_id == user
        wave_of_user = waves.c.user_id == user
        if guild is not None:
            appealed &= appeals.c.guild_id == guild
            wave_of_user &= waves.c.guild_id == guild
            await self.execute(delete(strikes).where(strikes.c.user_id == user, strikes.c.guild_id == guild))
        deleted = await self.execute(delete(appeals).where(appealed))
        deleted += await self.execute(delete(decisions).where(of_user, decisions.c.state != OPEN))
        deleted += await self.execute(delete(waves).where(wave_of_user, waves.c.state != OPEN))
        deleted += await self.execute(update(waves).where(wave_of_user).values(user_id=None))
        return deleted + await self.execute(update(decisions).where(of_user).values(user_id=None))

    async def drop_forgotten(self, message: int) -> int:
        """Delete the decisions on a message whose author had their data deleted, once they are made.

        Returns the number of rows.

        Raises:
            StoreError: if the database is away.
        """
        forgotten = decisions.c.user_id.is_(None) & (decisions.c.state != OPEN)
        return await self.execute(delete(decisions).where(decisions.c.message_id == message, forgotten))

    async def forget_guild(self, guild: int) -> None:
        """Delete a server's decisions, rulings and policy, as when the bot has left it.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()  # a row in the backlog would come back later
        self._policies.pop(guild, None)
        # Scores belong to no server: they hold hashes only, and other servers may use them.
        of_guild = (
            decisions,
            rulings,
            policies,
            channels,
            retries,
            outbox,
            guilds,
            reposts,
            waves,
            wave_claims,
            strikes,
            appeals,
            subscriptions,
        )
        for table in of_guild:
            await self.execute(delete(table).where(table.c.guild_id == guild))
        await self.execute(delete(meta).where(meta.c.key.in_([_notice_key(guild, each) for each in (MODLOG, RULES)])))

    # Notices to moderators

    async def notice(self, guild: int, subject: str) -> str:
        """What a server's moderators were last told about a subject; empty if nothing.

        Raises:
            StoreError: if the database is away.
        """
        return await self.get(_notice_key(guild, subject)) or ""

    async def save_notice(self, guild: int, subject: str, value: str) -> None:
        """Store what a server's moderators were told about a subject.

        Raises:
            StoreError: if the database is away.
        """
        await self.put(_notice_key(guild, subject), value)

    # Meta

    async def get(self, key: str) -> str | None:
        """The bot's own value under `key`."""
        rows = await self.query(select(meta.c.value).where(meta.c.key == key))
        return str(rows[0]["value"]) if rows else None

    async def put(self, key: str, value: str) -> None:
        """Store a value of the bot's own."""
        await self.upsert(meta, {"key": key, "value": value})

    async def _restore(self) -> None:
        for guild, policy in list(self._policies.items()):
            if policy != GuildPolicy():
                await self.set_policy(guild, policy)


def _rank(group: Sequence[ColumnElement[Any]], order: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return func.row_number().over(partition_by=list(group), order_by=order).label(name)


def _as_row(value: Decision | Retry | Job | Wave) -> Row:
    if isinstance(value, Wave):
        return waves, asdict(value)
    if isinstance(value, Decision):
        phash = None if value.phash is None else tables.signed(value.phash)
        return decisions, asdict(replace(value, phash=phash))
    return (retries if isinstance(value, Retry) else outbox), asdict(value)


def _as_decision(row: Mapping[str, Any]) -> Decision:
    return Decision(**{**row, "phash": None if row["phash"] is None else tables.unsigned(row["phash"])})


def _notice_key(guild: int, subject: str) -> str:
    return f"{subject} told {guild}"


def _of_pictures(message: int, pictures: Collection[str] | None) -> list[ColumnElement[bool]]:
    """Conditions for the decisions on some pictures of a message; None for all."""
    conditions = [decisions.c.message_id == message]
    return conditions if pictures is None else [*conditions, decisions.c.picture.in_(pictures)]


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > CACHED:
        memory.popitem(last=False)
