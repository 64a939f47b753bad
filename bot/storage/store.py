"""What the bot remembers: guilds' policies, decisions, moderators' rulings, scores. Never a picture."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from bot.rules.policy import GuildPolicy
from bot.storage import tables
from bot.storage.database import Database, StoreError
from bot.storage.tables import OPEN, Decision, Ruling, Scored, decisions, meta, policies, rulings, scores

REMEMBERED = 2_000
"""Scores, and guilds' policies, that are kept at hand."""
SCORED = select(scores).where(scores.c.sha256 == bindparam("sha"), scores.c.md5 == bindparam("model"))
"""Made once: to put a statement together takes longer than to run it."""


class Store(Database):
    """The bot's memory."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url)
        self._clock = clock
        self._policies: OrderedDict[int, GuildPolicy] = OrderedDict()
        self._scored: OrderedDict[tuple[str, str], Scored] = OrderedDict()

    def now(self) -> int:
        """Unix time, in s."""
        return int(self._clock())

    # Policies

    async def policy(self, guild: int) -> GuildPolicy:
        """A guild's settings.

        Raises:
            StoreError: if they are not at hand and the database is away.
        """
        if guild not in self._policies:
            rows = await self.ask(select(policies.c.policy).where(policies.c.guild_id == guild))
            _remember(self._policies, guild, GuildPolicy.loads(rows[0]["policy"]) if rows else GuildPolicy())
        return self._policies[guild]

    async def set_policy(self, guild: int, policy: GuildPolicy) -> None:
        """Keep a guild's settings.

        Raises:
            StoreError: if the database is away; the settings stay as they were.
        """
        await self.replace(policies, {"guild_id": guild, "policy": policy.dumps()})
        _remember(self._policies, guild, policy)

    # Scores

    async def scored(self, sha256: str, md5: str) -> Scored | None:
        """What the model `md5` made of a picture before; None if it is new, or the database is away."""
        if (sha256, md5) not in self._scored:
            try:
                rows = await self.ask(SCORED, {"sha": sha256, "model": md5})
            except StoreError:
                return None
            if not rows:
                return None
            row = dict(rows[0])
            _remember(self._scored, (sha256, md5), Scored(**{**row, "phash": tables.unsigned(row["phash"])}))
        return self._scored[sha256, md5]

    async def keep_scores(self, scored: Scored) -> None:
        """Keep a model's scores of a picture."""
        _remember(self._scored, (scored.sha256, scored.md5), scored)
        row = replace(scored, phash=tables.signed(scored.phash), created_at=self.now())
        await self.append(scores, asdict(row))

    # Decisions

    async def record(self, decision: Decision) -> None:
        """Keep a decision, now or once the database is back; one of the same picture of the same message stays."""
        phash = None if decision.phash is None else tables.signed(decision.phash)
        await self.append(decisions, asdict(replace(decision, phash=phash)))

    async def decided(self, message: int) -> dict[str, Decision]:
        """Decisions on a message's pictures, by their keys; none if the database is away."""
        try:
            return {each.picture: each for each in await self.decisions(decisions.c.message_id == message)}
        except StoreError:
            return {}

    async def decisions(self, *conditions: Any, limit: int = 1000) -> list[Decision]:
        """Decisions, newest first.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        rows = await self.ask(
            select(decisions).where(*conditions).order_by(decisions.c.created_at.desc(), decisions.c.id).limit(limit)
        )
        return [
            Decision(**{**row, "phash": None if row["phash"] is None else tables.unsigned(row["phash"])})
            for row in rows
        ]

    async def settle(self, message: int, state: str, moderator: int | None) -> bool:
        """Give a message's open decisions a moderator's state; False if another one was faster.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        statement = update(decisions).where(decisions.c.message_id == message, decisions.c.state == OPEN)
        return bool(await self.change(statement.values(state=state, moderator_id=moderator, decided_at=self.now())))

    async def reopen(self, message: int, state: str) -> None:
        """Take a moderator's state back, as what it asked for could not be done.

        Raises:
            StoreError: if the database is away.
        """
        statement = update(decisions).where(decisions.c.message_id == message, decisions.c.state == state)
        await self.change(statement.values(state=OPEN, moderator_id=None, decided_at=None))

    # Rulings

    async def rulings(self, guild: int) -> list[Ruling]:
        """Moderators' decisions on pictures in a guild.

        Raises:
            StoreError: if the database is away.
        """
        rows = await self.ask(select(rulings).where(rulings.c.guild_id == guild))
        return [Ruling(**{**row, "phash": tables.unsigned(row["phash"])}) for row in rows]

    async def rule(self, ruling: Ruling) -> None:
        """Keep a moderator's decision on a picture; it takes the place of an earlier one.

        Raises:
            StoreError: if the database is away.
        """
        await self.replace(rulings, asdict(replace(ruling, phash=tables.signed(ruling.phash))))

    # Retention and privacy

    async def sweep(self, days: int) -> int:
        """Remove what is older than `days`, open decisions too; the number of rows removed.

        Raises:
            StoreError: if the database is away.
        """
        before = self.now() - days * 86400
        return sum(
            [
                await self.change(delete(table).where(table.c.created_at < before))
                for table in (decisions, rulings, scores)
            ]
        )

    async def forget(self, user: int, guild: int | None = None) -> int:
        """Remove a user's decisions, in one guild or in all; of those that moderators still have to look at, only
        the user's id. The number of rows concerned.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        mine = decisions.c.user_id == user
        if guild is not None:
            mine &= decisions.c.guild_id == guild
        gone = await self.change(delete(decisions).where(mine, decisions.c.state != OPEN))
        return gone + await self.change(update(decisions).where(mine).values(user_id=None))

    async def forget_guild(self, guild: int) -> None:
        """Remove all that is kept of a guild, as when the bot has left it.

        Raises:
            StoreError: if the database is away.
        """
        await self.flush()
        self._policies.pop(guild, None)
        for table in (decisions, rulings, policies):
            await self.change(delete(table).where(table.c.guild_id == guild))

    # Meta

    async def get(self, key: str) -> str | None:
        """A value of the bot's own."""
        rows = await self.ask(select(meta.c.value).where(meta.c.key == key))
        return str(rows[0]["value"]) if rows else None

    async def put(self, key: str, value: str) -> None:
        """Keep a value of the bot's own."""
        await self.replace(meta, {"key": key, "value": value})

    async def count(self) -> int:
        """Decisions kept.

        Raises:
            StoreError: if the database is away.
        """
        return int((await self.ask(select(func.count().label("n")).select_from(decisions)))[0]["n"])


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
