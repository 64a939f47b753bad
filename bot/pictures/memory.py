"""Moderators' decisions on pictures, at hand: found again by equal bytes, or by a near perceptual hash."""

from __future__ import annotations

import time
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from bot.storage.database import StoreError
from bot.storage.store import Store
from bot.storage.tables import Ruling

NEAR = 4
"""Bits in which two hashes of the same picture may differ: sizes and qualities change fewer."""
GUILDS = 256
"""Guilds whose rulings are kept at hand."""
FRESH = 600.0
"""Seconds after which they are read anew: a retention sweep or another process may have changed them."""


class Rulings:
    """What moderators decided, guild by guild."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guilds: OrderedDict[int, _Guild] = OrderedDict()

    async def find(self, guild: int, sha256: str, phash: int | None = None) -> Ruling | None:
        """The ruling on a picture of these bytes, else the nearest one by perceptual hash; None while there is no
        database to ask.
        """
        known = await self._guild(guild)
        if known is None:
            return None
        found = known.equal.get(sha256)
        return known.near(phash) if found is None and phash is not None else found

    async def add(self, ruling: Ruling) -> None:
        """Keep a moderator's decision.

        Raises:
            StoreError: if the database is away.
        """
        await self._store.rule(ruling)
        self._guilds.pop(ruling.guild_id, None)

    async def _guild(self, guild: int) -> _Guild | None:
        known = self._guilds.get(guild)
        if known is None or time.monotonic() - known.since > FRESH:
            try:
                known = _Guild(await self._store.rulings(guild))
            except StoreError:
                return known
            self._guilds[guild] = known
        self._guilds.move_to_end(guild)
        while len(self._guilds) > GUILDS:
            self._guilds.popitem(last=False)
        return known


class _Guild:
    def __init__(self, rulings: list[Ruling]) -> None:
        self.since = time.monotonic()
        self.equal = {each.sha256: each for each in rulings}
        self._rulings = [each for each in rulings if _telling(each.phash)]
        self._hashes: NDArray[np.uint64] = np.array([each.phash for each in self._rulings], np.uint64)

    def near(self, phash: int) -> Ruling | None:
        if not self._rulings or not _telling(phash):
            return None
        distances = np.bitwise_count(self._hashes ^ np.uint64(phash))
        least = int(distances.min())
        if least > NEAR:
            return None
        return max(
            (self._rulings[place] for place in np.flatnonzero(distances == least)), key=lambda each: each.created_at
        )


def _telling(phash: int) -> bool:
    """Whether a hash says anything: about half of a picture's bits are set, nearly none of a plain surface's."""
    return 16 <= phash.bit_count() <= 48
