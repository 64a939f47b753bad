"""Moderators' decisions on pictures, in memory: matched by equal bytes or by a similar perceptual hash."""

from __future__ import annotations

import time
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import Ruling

MAX_DISTANCE = 4
"""Differing bits of two hashes of the same picture. Scaling and compression change fewer."""
MAX_GUILDS = 256
"""Servers whose rulings are kept in memory."""
MAX_AGE = 600.0
"""Seconds after which they are read again: a retention sweep or another process may have changed them."""


class Rulings:
    """Moderators' rulings per server."""

    def __init__(self, store: BotStore) -> None:
        self._store = store
        self._guilds: OrderedDict[int, _GuildRulings] = OrderedDict()

    async def find(self, guild: int, sha256: str, phash: int | None = None) -> Ruling | None:
        """The ruling on equal bytes, else on the most similar picture.

        None if there is neither, or if the database is away and the rulings are not in memory.
        """
        rulings = await self._of_guild(guild)
        if rulings is None:
            return None
        ruling = rulings.by_sha256.get(sha256)
        return rulings.nearest(phash) if ruling is None and phash is not None else ruling

    async def add(self, ruling: Ruling) -> None:
        """Store a moderator's ruling.

        Raises:
            StoreError: if the database is away.
        """
        await self._store.save_ruling(ruling)
        # The next picture reads them again: hashes are searched as one array, which cannot grow.
        self._guilds.pop(ruling.guild_id, None)

    async def _of_guild(self, guild: int) -> _GuildRulings | None:
        rulings = self._guilds.get(guild)
        if rulings is None or time.monotonic() - rulings.loaded_at > MAX_AGE:
            try:
                rulings = _GuildRulings(await self._store.rulings(guild))
            except StoreError:
                return rulings  # outdated ones are better than none
            self._guilds[guild] = rulings
        self._guilds.move_to_end(guild)
        while len(self._guilds) > MAX_GUILDS:
            self._guilds.popitem(last=False)
        return rulings


class _GuildRulings:
    def __init__(self, rulings: list[Ruling]) -> None:
        self.loaded_at = time.monotonic()
        self.by_sha256 = {ruling.sha256: ruling for ruling in rulings}
        self._rulings = [ruling for ruling in rulings if _is_distinctive(ruling.phash)]
        self._hashes: NDArray[np.uint64] = np.array([ruling.phash for ruling in self._rulings], np.uint64)

    def nearest(self, phash: int) -> Ruling | None:
        """The ruling on the most similar picture within `MAX_DISTANCE`; among equals, the newest."""
        if not self._rulings or not _is_distinctive(phash):
            return None
        distances = np.bitwise_count(self._hashes ^ np.uint64(phash))
        smallest = int(distances.min())
        if smallest > MAX_DISTANCE:
            return None
        closest = (self._rulings[index] for index in np.flatnonzero(distances == smallest))
        return max(closest, key=lambda ruling: ruling.created_at)


def _is_distinctive(phash: int) -> bool:
    """Whether a hash tells pictures apart. About half of the bits are set in most, nearly none in plain surfaces."""
    return 16 <= phash.bit_count() <= 48
