"""Which pictures of a message were looked at, so that an edit does not do it again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.pictures.examining import Finding
from bot.pictures.references import Reference
from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import UNJUDGED_ORIGIN, decisions

REMEMBERED_MESSAGES = 2_000
"""Messages that are kept in memory, not counting those in progress."""


@dataclass
class _Message:
    claimed: set[str] = field(default_factory=set)
    """Keys of pictures in progress or decided."""
    unjudged: set[str] = field(default_factory=set)
    """Of these, those that no model and no moderator judged."""
    stored: bool = False
    """Whether the decisions of an earlier time are among them."""
    users: int = 0
    """Checks in progress: while there are any, the message is not forgotten."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Claims:
    """Hands each picture of a message to one check."""

    def __init__(self, store: BotStore) -> None:
        self._store = store
        self._messages: OrderedDict[int, _Message] = OrderedDict()

    async def claim(
        self, message_id: int, pictures: Sequence[Reference], again: bool, unjudged: bool
    ) -> list[Reference]:
        """The pictures that nobody looked at. They are the caller's, who has to call `release`.

        Args:
            message_id: id of the message.
            pictures: all that it shows.
            again: it may have been looked at before a restart, so ask the database.
            unjudged: also those that were looked at without a verdict.
        """
        message = self._messages.setdefault(message_id, _Message())
        self._messages.move_to_end(message_id)
        message.users += 1
        try:
            return await self._claim(message_id, message, pictures, again, unjudged)
        except BaseException:
            message.users -= 1
            raise

    async def _claim(
        self, message_id: int, message: _Message, pictures: Sequence[Reference], again: bool, unjudged: bool
    ) -> list[Reference]:
        self._forget_oldest()
        # The first look at a new message takes the lock without a pause: an edit then finds its pictures taken.
        async with message.lock:
            if again and not message.stored:
                await self._read(message_id, message)
            new = [
                picture
                for picture in pictures
                if picture.key not in message.claimed or (unjudged and picture.key in message.unjudged)
            ]
            message.claimed |= {picture.key for picture in new}
            message.unjudged -= {picture.key for picture in new}
            return new

    async def _read(self, message_id: int, message: _Message) -> None:
        try:
            rows = await self._store.decisions(decisions.c.message_id == message_id)
        except StoreError:
            return  # the next check asks again
        message.stored = True
        of_others = [row for row in rows if row.picture not in message.claimed]
        message.claimed |= {row.picture for row in of_others}
        message.unjudged |= {
            row.picture for row in of_others if row.origin == UNJUDGED_ORIGIN and row.moderator_id is None
        }

    def release(self, message_id: int, claimed: Sequence[Reference], findings: Sequence[Finding] | None) -> None:
        """End a check. Call it once for each `claim`.

        Args:
            message_id: id of the message.
            claimed: what `claim` returned.
            findings: what the check found; None if it was broken off, so that the pictures may be claimed again.
        """
        message = self._messages[message_id]  # it is not forgotten while it is used
        message.users -= 1
        if findings is not None:
            message.unjudged |= {each.reference.key for each in findings if each.origin == UNJUDGED_ORIGIN}
        else:
            message.claimed -= {picture.key for picture in claimed}
            message.stored = False  # some of them may be decided by now

    def _forget_oldest(self) -> None:
        surplus = len(self._messages) - REMEMBERED_MESSAGES
        if surplus > 0:
            idle = [message_id for message_id, message in self._messages.items() if not message.users]
            for message_id in idle[:surplus]:
                del self._messages[message_id]
