"""Moderators' decisions on pictures, in memory: matched by equal bytes, or as a copy of what was decided on."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bot.pictures import recognising
from bot.pictures.copies import Fingerprint, FingerprintError, Sighting
from bot.pictures.copy_index import CopyIndex
from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import Ruling, rulings

MAX_DISTANCE = 4
"""Differing bits of two 64-bit hashes of the same picture: of rulings from before there were fingerprints."""
MAX_GUILDS = 256
"""Servers whose rulings are kept in memory."""
PUBLISHED = "*"
"""In place of a list's name: other servers may follow this one."""
MAX_AGE = 600.0
"""Seconds after which it is checked whether others have changed: a retention sweep or another process may have."""


@dataclass(frozen=True)
class Match:
    """A ruling that a picture falls under."""

    ruling: Ruling
    similarity: float = 1.0
    """0 to 1; 1 for equal bytes."""
    sure: bool = True
    """Whether to act on it; otherwise it is only shown to moderators."""
    source: str = ""
    """The list that it is from; empty for a decision of this server."""


class Rulings:
    """Moderators' rulings per server, and those of the lists that it subscribes to."""

    def __init__(self, store: BotStore, files: Mapping[str, Sequence[Ruling]] | None = None) -> None:
        """`files`: lists that the bot was started with, by name."""
        self._store = store
        self._guilds: OrderedDict[int, _Remembered] = OrderedDict()
        self._files = {name: _Remembered(0) for name in files or {}}
        for name, listed in (files or {}).items():
            self._files[name].extend(listed)

    @property
    def files(self) -> dict[str, int]:
        """Names of the lists that the bot was started with, and how many pictures each has."""
        return {name: len(remembered) for name, remembered in self._files.items()}

    async def find(
        self,
        guild: int,
        sha256: str,
        seen: Sighting | None = None,
        phash: int | None = None,
        sure: float = recognising.SURE,
    ) -> Match | None:
        """The ruling on equal bytes, else on the picture that this one is a copy of.

        A server's own decision outranks a list's, and a sure match a likely one.

        Args:
            guild: the server.
            sha256: of the picture's bytes.
            seen: the picture; without it, only equal bytes match.
            phash: the picture's 64-bit hash, for rulings that have no fingerprint.
            sure: similarity from which a match is acted on.

        Returns:
            None if there is none, or if the database is away and the rulings are not in memory.
        """
        likely: Match | None = None
        for source, remembered in await self._sources(guild):
            ruling = remembered.exact(sha256)
            if ruling is None and phash is not None:
                ruling = remembered.nearest(phash)
            if ruling is not None:
                return Match(ruling, source=source)
            if seen is None:
                continue
            found = await self._recognise(remembered, seen)
            if found is not None and found.similarity >= sure:
                return replace(found, source=source)
            if found is not None:
                likely = likely or replace(found, source=source, sure=False)
        return likely

    async def knows_copies(self, guild: int) -> bool:
        """Whether there is any picture whose copies could be recognised."""
        return any(remembered.has_fingerprints for _, remembered in await self._sources(guild))

    async def add(self, *added: Ruling) -> None:
        """Store moderators' rulings.

        Raises:
            StoreError: if the database is away.
        """
        for ruling in added:
            await self._store.save_ruling(ruling)
        by_guild: dict[int, list[Ruling]] = {}
        for ruling in added:
            by_guild.setdefault(ruling.guild_id, []).append(ruling)
        for guild, changed in by_guild.items():
            if guild in self._guilds:
                self._guilds[guild].extend(changed)

    async def add_all(self, guild: int, added: Sequence[Ruling]) -> int:
        """Store a list's rulings on pictures that a server has not decided on. Returns their number.

        Raises:
            StoreError: if the database is away.
        """
        known = await self._store.known_rulings(guild, {ruling.sha256 for ruling in added})
        new = [ruling for ruling in added if ruling.sha256 not in known]
        await self._store.add_rulings(new)
        self._guilds.pop(guild, None)
        return len(new)

    async def publish(self, guild: int, on: bool) -> None:
        """Let other servers follow this one's decisions, or no more.

        Raises:
            StoreError: if the database is away.
        """
        await self.subscribe(guild, PUBLISHED, on)

    async def is_published(self, guild: int) -> bool:
        """Whether other servers may follow a server's decisions."""
        remembered = await self._of_guild(guild)
        return remembered is not None and PUBLISHED in remembered.subscriptions

    async def forget(self, guild: int, sha256: str) -> bool:
        """Forget a ruling. False if there is none.

        Raises:
            StoreError: if the database is away.
        """
        forgotten = await self._store.delete_ruling(guild, sha256)
        if guild in self._guilds:
            self._guilds[guild].remove(sha256)
        return forgotten

    async def _recognise(self, remembered: _Remembered, seen: Sighting) -> Match | None:
        # In a thread: the event loop must not wait for it.
        proposals = await asyncio.to_thread(remembered.index.propose, seen)
        fingerprints: dict[int, Fingerprint] = {}
        for row in {proposal.row for proposal in proposals}:
            if (fingerprint := await self._fingerprint(remembered, row)) is not None:
                fingerprints[row] = fingerprint
        if not fingerprints:
            return None
        found = await asyncio.to_thread(recognising.recognise, seen, proposals, fingerprints)
        return None if found is None else Match(remembered.ruling_of(found.row), found.similarity)

    async def _fingerprint(self, remembered: _Remembered, row: int) -> Fingerprint | None:
        """A remembered picture's fingerprint. Only its index is in memory: all of it would take three times as much."""
        if row in remembered.recent:
            remembered.recent.move_to_end(row)
            return remembered.recent[row]
        sha256 = remembered.ruling_of(row).sha256
        try:
            rows = await self._store.rulings(remembered.guild, rulings.c.sha256 == sha256)
        except StoreError:
            return None
        fingerprint = parse(rows[0].fingerprint) if rows else None
        if fingerprint is not None:
            remembered.keep(row, fingerprint)
        return fingerprint

    async def _sources(self, guild: int) -> list[tuple[str, _Remembered]]:
        """The server's own rulings, then those of its lists."""
        own = await self._of_guild(guild)
        if own is None:
            return []
        sources = [("", own)]
        for name in own.subscriptions:
            if name in self._files:
                sources.append((name, self._files[name]))
                continue
            listed = await self._of_guild(int(name)) if name.isdecimal() else None
            if listed is not None and PUBLISHED in listed.subscriptions:  # it may have been withdrawn
                sources.append((name, listed))
        return sources

    async def subscribe(self, guild: int, name: str, on: bool) -> None:
        """Begin or cease to follow a list.

        Raises:
            StoreError: if the database is away.
        """
        await self._store.save_subscription(guild, name, on)
        self._guilds.pop(guild, None)

    async def _of_guild(self, guild: int) -> _Remembered | None:
        remembered = self._guilds.get(guild)
        try:
            if remembered is not None and time.monotonic() - remembered.checked_at > MAX_AGE:
                remembered.checked_at = time.monotonic()
                if await self._store.count_rulings(guild) != remembered.state:
                    remembered = None
            if remembered is None:
                remembered = _Remembered(guild)
                remembered.extend(await self._store.rulings(guild))
                remembered.subscriptions = await self._store.subscriptions(guild)
                self._guilds[guild] = remembered
        except StoreError:
            return self._guilds.get(guild)  # outdated ones are better than none
        self._guilds.move_to_end(guild)
        while len(self._guilds) > MAX_GUILDS:
            self._guilds.popitem(last=False)
        return remembered


MAX_RECENT = 2_000
"""Fingerprints kept in memory per server, besides the index."""


class _Remembered:
    """The rulings of a server or a list."""

    def __init__(self, guild: int) -> None:
        self.guild = guild
        self.checked_at = time.monotonic()
        self.index = CopyIndex()
        self.recent: OrderedDict[int, Fingerprint] = OrderedDict()
        self.subscriptions: list[str] = []
        self._by_sha256: dict[bytes, Ruling] = {}
        self._rows: list[bytes] = []
        """SHA-256 of each picture in the index."""
        self._row_of: dict[bytes, int] = {}
        self._old: list[Ruling] = []
        self._hashes: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return len(self._by_sha256)

    @property
    def has_fingerprints(self) -> bool:
        return bool(self._row_of)

    @property
    def state(self) -> tuple[int, int]:
        """As `BotStore.count_rulings`."""
        return len(self), max((ruling.created_at for ruling in self._by_sha256.values()), default=0)

    def extend(self, added: Sequence[Ruling]) -> None:
        """Remember rulings, in place of earlier ones on the same bytes."""
        fingerprints = []
        for ruling in added:
            key = bytes.fromhex(ruling.sha256.rjust(64, "0"))
            fingerprint = parse(ruling.fingerprint)
            # Only what a look-up needs stays in memory.
            self._by_sha256[key] = replace(ruling, fingerprint=None)
            if fingerprint is not None and key not in self._row_of:  # equal bytes have equal fingerprints
                self._row_of[key] = len(self._rows)
                self._rows.append(key)
                fingerprints.append(fingerprint)
        first = self.index.extend(fingerprints)
        keep: Callable[[int, Fingerprint], None] = self.keep if self.guild else self.recent.__setitem__
        for place, fingerprint in enumerate(fingerprints):
            keep(first + place, fingerprint)
        self._set_old()

    def keep(self, row: int, fingerprint: Fingerprint) -> None:
        """Keep a fingerprint at hand. A list from a file has them nowhere else, so it keeps all."""
        self.recent[row] = fingerprint
        while len(self.recent) > MAX_RECENT and self.guild:
            self.recent.popitem(last=False)

    def remove(self, sha256: str) -> None:
        key = bytes.fromhex(sha256.rjust(64, "0"))
        self._by_sha256.pop(key, None)
        if (row := self._row_of.pop(key, None)) is not None:
            self.index.remove(row)
        self._set_old()

    def exact(self, sha256: str) -> Ruling | None:
        """The ruling on equal bytes."""
        return self._by_sha256.get(bytes.fromhex(sha256.rjust(64, "0")))

    def ruling_of(self, row: int) -> Ruling:
        """The ruling on a picture in the index."""
        return self._by_sha256[self._rows[row]]

    def _set_old(self) -> None:
        old = (ruling for key, ruling in self._by_sha256.items() if key not in self._row_of)
        self._old = [ruling for ruling in old if _is_distinctive(ruling.phash)]
        self._hashes = np.array([ruling.phash for ruling in self._old], np.uint64)

    def nearest(self, phash: int) -> Ruling | None:
        """Of the rulings without a fingerprint, the one on the most similar picture within `MAX_DISTANCE`."""
        if not self._old or not _is_distinctive(phash):
            return None
        distances = np.bitwise_count(self._hashes ^ np.uint64(phash))
        smallest = int(distances.min())
        if smallest > MAX_DISTANCE:
            return None
        closest = (self._old[index] for index in np.flatnonzero(distances == smallest))
        return max(closest, key=lambda ruling: ruling.created_at)


def parse(data: bytes | None) -> Fingerprint | None:
    """A stored fingerprint; None if there is none, or it is of another version."""
    if data is None:
        return None
    try:
        return Fingerprint.from_bytes(bytes(data))
    except FingerprintError:
        return None


def _is_distinctive(phash: int) -> bool:
    """Whether a hash tells pictures apart. About half of the bits are set in most, nearly none in plain surfaces."""
    return 16 <= phash.bit_count() <= 48
