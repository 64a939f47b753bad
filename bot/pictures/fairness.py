"""Turns, shared out by server and author: a flood delays its author, then its server, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

GuildAndAuthor = tuple[int, int]


MAX_OVERTAKEN = 32
"""After so many smaller ones, the next slot waits for a large one."""

SLOW_SECONDS = 600.0
"""How long an author counts as slow after a slow turn."""
MAX_SLOW = 1000
"""Slow authors that are remembered."""


class QueueFullError(Exception):
    """Too many wait already, and whoever posts the most was refused."""


@dataclass(eq=False)
class _Waiter:
    guild: int
    author: int
    size: int
    future: asyncio.Future[None]
    slow: bool = False
    """Whether its author was slow when it got its turn."""
    overtaken: int = 0
    """How often another one got a turn because this one did not fit the budget."""


class FairQueue:
    """A number of slots, and who gets the next one.

    Servers take turns, and authors within a server. Whoever holds many slots leaves some free: a server may hold as
    many as are still free, an author half as many. So the first picture of another server finds a slot at once, however
    slow those of the flood are. Call it from the event loop's thread.
    """

    def __init__(self, slots: int, limit: int = 0, budget: int = 0, slow_after: float | None = None) -> None:
        """Nobody waits yet.

        Args:
            slots: turns at a time.
            limit: turns held and waiting together; 0: no limit.
            budget: the sum of sizes of the turns at a time; 0: no limit. A larger one gets its turn alone.
            slow_after: for few slots and work that is mostly short: all slots may be used, but authors whose last turns
                took more than so many seconds leave one of them, together, to all others.
        """
        self._slots = slots
        self._limit = limit
        self._budget = budget
        self._slow_after = slow_after
        self._slow_until: OrderedDict[int, float] = OrderedDict()
        self._held: Counter[int] = Counter()
        self._held_by: Counter[GuildAndAuthor] = Counter()
        self._bytes: Counter[int] = Counter()
        self._running = 0
        self._running_slow = 0
        self._used = 0
        # The next in turn is first, of the servers and of the authors within each.
        self._guilds: OrderedDict[int, OrderedDict[int, deque[_Waiter]]] = OrderedDict()
        self._waiting = 0

    @property
    def length(self) -> int:
        """Turns held and waiting together."""
        return self._running + self._waiting

    @contextlib.asynccontextmanager
    async def turn(self, guild: int, author: int, size: int = 0) -> AsyncIterator[None]:
        """Wait for a turn, and hold it.

        Args:
            guild: server id.
            author: user id; 0 stands for the server's moderators.
            size: bytes held, counted against the budget.

        Raises:
            QueueFullError: if the queue is full and no author has more waiting than this one, now or later.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(guild, author, size, loop.create_future())
        self._enqueue(waiter)
        start = math.inf
        try:
            self._grant()
            self._refuse_surplus()
            await waiter.future
            start = loop.time()
            yield
        finally:
            self._note_slow(author, start, loop.time())
            if not waiter.future.done() or waiter.future.cancelled():
                self._remove(waiter)
            elif waiter.future.exception() is None:
                self._give_back(waiter)
            self._grant()

    def _note_slow(self, author: int, start: float, end: float) -> None:
        if self._slow_after is not None and end - start > self._slow_after:
            self._slow_until[author] = end + SLOW_SECONDS
            self._slow_until.move_to_end(author)
            while len(self._slow_until) > MAX_SLOW:
                self._slow_until.popitem(last=False)

    def _is_slow(self, waiter: _Waiter) -> bool:
        return self._slow_until.get(waiter.author, 0.0) > asyncio.get_running_loop().time()

    # Taking and giving back

    def _grant(self) -> None:
        """Give free slots to those whose turn it is."""
        while self._running < self._slots and (waiter := self._next()) is not None:
            self._remove(waiter)
            if not waiter.future.done():  # it may be cancelled, and not know yet
                waiter.slow = self._is_slow(waiter)
                self._count(waiter, 1)
                waiter.future.set_result(None)

    def _give_back(self, waiter: _Waiter) -> None:
        self._count(waiter, -1)
        if not self._held[waiter.guild]:
            del self._held[waiter.guild], self._bytes[waiter.guild]
        if not self._held_by[waiter.guild, waiter.author]:
            del self._held_by[waiter.guild, waiter.author]

    def _count(self, waiter: _Waiter, sign: int) -> None:
        self._running += sign
        self._running_slow += sign * waiter.slow
        self._used += sign * waiter.size
        self._held[waiter.guild] += sign
        self._held_by[waiter.guild, waiter.author] += sign
        self._bytes[waiter.guild] += sign * waiter.size

    def _next(self) -> _Waiter | None:
        """The first in turn that may have a slot, and whose bytes fit."""
        too_large: list[_Waiter] = []
        for waiter in self._in_turn():
            if not self._has_share_left(waiter):
                continue
            if not self._budget or not self._used or self._used + waiter.size <= self._budget:
                for each in too_large:
                    each.overtaken += 1
                return waiter
            if waiter.overtaken >= MAX_OVERTAKEN:
                return None
            too_large.append(waiter)
        return None

    def _in_turn(self) -> Iterator[_Waiter]:
        """The first waiting turn of each author, by server and author in turn."""
        for authors in self._guilds.values():
            for line in authors.values():
                yield line[0]

    def _has_share_left(self, waiter: _Waiter) -> bool:
        if not self._running:
            return True
        if self._slow_after is not None:
            return not self._is_slow(waiter) or self._running_slow < max(1, self._slots - 1)
        free = self._slots - self._running
        if self._held[waiter.guild] >= free or 2 * self._held_by[waiter.guild, waiter.author] >= free:
            return False
        # The same for bytes, except that a server that holds none may always begin.
        held = self._bytes[waiter.guild]
        return not self._budget or not held or held + waiter.size <= self._budget - self._used - waiter.size

    # The line

    def _enqueue(self, waiter: _Waiter) -> None:
        self._guilds.setdefault(waiter.guild, OrderedDict()).setdefault(waiter.author, deque()).append(waiter)
        self._waiting += 1

    def _remove(self, waiter: _Waiter) -> None:
        """Take a waiting turn off the line; its author and server go to the end of theirs."""
        authors = self._guilds.get(waiter.guild, OrderedDict())
        line = authors.get(waiter.author, deque())
        if waiter not in line:
            return
        line.remove(waiter)
        self._waiting -= 1
        if line:
            authors.move_to_end(waiter.author)
        else:
            del authors[waiter.author]
        if authors:
            self._guilds.move_to_end(waiter.guild)
        else:
            del self._guilds[waiter.guild]

    def _refuse_surplus(self) -> None:
        """Refuse the newest picture of the author who has the most waiting, in the server that has."""
        while self._waiting and 0 < self._limit < self.length:
            authors = max(self._guilds.values(), key=lambda authors: sum(map(len, authors.values())))
            waiter = max(authors.values(), key=len)[-1]
            self._remove(waiter)
            waiter.future.set_exception(QueueFullError())
