"""Authors who were told of an action, and their appeals. Each step is claimed, so that it is taken once."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, delete, func, select, update

from bot.storage.store import BotStore
from bot.storage.tables import APPEALED, SENT, TOLD, Appeal, appeals

MAX_NOTICES_A_DAY = 5
"""Direct messages to one author. After that, nothing is said."""
MAX_NOTICES_A_MINUTE = 20
"""Of this process. Discord takes a bot that opens many direct messages for a spammer."""
MAX_APPEALS_A_DAY = 3
"""Of one author, in all servers."""
DAY = 86400
MAX_DUE = 64
"""Appeals that one round posts."""


class Appeals:
    """The table of appeals. Every method raises a StoreError if the database is away."""

    def __init__(self, store: BotStore) -> None:
        self._store = store
        self._notices: deque[int] = deque(maxlen=MAX_NOTICES_A_MINUTE)
        """Times of this process's last notices."""

    async def begin(self, appeal: Appeal) -> bool:
        """Note that an author is about to be told. False if they were, or if too much was said of late."""
        now = self._store.now()
        if len(self._notices) == MAX_NOTICES_A_MINUTE and now - self._notices[0] < 60:
            return False
        today = (appeals.c.user_id == appeal.user_id) & (appeals.c.created_at > now - DAY)
        if await self._count(today) >= MAX_NOTICES_A_DAY or not await self._store.insert_new(appeals, asdict(appeal)):
            return False
        self._notices.append(now)
        return True

    async def withdraw(self, message: int) -> None:
        """Forget an author who could not be told."""
        await self._store.execute(delete(appeals).where(appeals.c.message_id == message, appeals.c.state == TOLD))

    async def find(self, message: int) -> Appeal | None:
        """The appeal about a message."""
        rows = await self._store.query(select(appeals).where(appeals.c.message_id == message))
        return Appeal(**rows[0]) if rows else None

    async def may_appeal(self, user: int) -> bool:
        """Whether a user has appealed less often than is allowed within a day."""
        today = (appeals.c.user_id == user) & (appeals.c.appealed_at > self._store.now() - DAY)
        return await self._count(today) < MAX_APPEALS_A_DAY

    async def send(self, message: int, user: int, text: str) -> bool:
        """Keep what an author wrote for the moderators. False if it is not theirs to write, or the second time."""
        values = {"state": SENT, "text": text, "appealed_at": self._store.now(), "due_at": self._store.now()}
        return await self._move(message, TOLD, values, appeals.c.user_id == user)

    async def due(self, guild_ids: Collection[int]) -> Sequence[Appeal]:
        """The appeals in these servers that wait to be posted, oldest first."""
        waiting = (appeals.c.state == SENT) & (appeals.c.due_at <= self._store.now())
        chosen = select(appeals).where(waiting, appeals.c.guild_id.in_(guild_ids))
        rows = await self._store.query(chosen.order_by(appeals.c.appealed_at, appeals.c.message_id).limit(MAX_DUE))
        return [Appeal(**row) for row in rows]

    async def postpone(self, appeal: Appeal, due_at: int) -> None:
        """Note a failed attempt to post an appeal."""
        await self._move(appeal.message_id, SENT, {"tries": appeal.tries + 1, "due_at": due_at})

    async def posted(self, message: int) -> None:
        """Moderators can read an appeal: its text need not be stored any longer."""
        await self._move(message, SENT, {"state": APPEALED, "text": None})

    async def settle(self, message: int, state: str, moderator: int) -> bool:
        """Decide an appeal. False if another moderator was faster."""
        return await self._move(message, APPEALED, {"state": state, "moderator_id": moderator})

    async def reopen(self, message: int, state: str) -> None:
        """Undo `settle`, because what follows from it failed."""
        await self._move(message, state, {"state": APPEALED, "moderator_id": None})

    async def _count(self, condition: ColumnElement[bool]) -> int:
        rows = await self._store.query(select(func.count().label("number")).select_from(appeals).where(condition))
        return int(rows[0]["number"])

    async def _move(
        self, message: int, state: str, values: dict[str, object], *conditions: ColumnElement[bool]
    ) -> bool:
        """Change an appeal that is in this state. One statement: of two at once, only one finds it there."""
        chosen = (appeals.c.message_id == message) & (appeals.c.state == state)
        return bool(await self._store.execute(update(appeals).where(chosen, *conditions).values(values)))
