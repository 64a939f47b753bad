"""One author's pictures in several channels within a short time: which of their messages are a wave. Pure.

Times are those in the messages' ids, which Discord's own clock made: neither the order in which messages arrive nor
this machine's clock changes what is found.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

MAX_DISTANCE = 4
"""Differing bits of two perceptual hashes of the same picture."""
MAX_POSTINGS = 50
"""Messages of one author that are remembered, the newest ones."""
MAX_PICTURES = 10
"""Pictures of one message that are compared."""
MAX_TOTAL = 20_000
"""Messages that are remembered in all. Beyond that, the server with the most gives up its longest silent authors."""
KEEP_SECONDS = 1200.0
"""How long an author is remembered after their last picture, by this machine's clock: twice the longest window."""


@dataclass(frozen=True)
class BurstLimits:
    """What counts as a wave: one author's pictures in so many channels within so many seconds."""

    channels: int
    seconds: int
    any_picture: bool = False
    """Whether different pictures count together. Otherwise it has to be the same one, or nearly."""


@dataclass(frozen=True)
class PictureMarks:
    """By what a picture is recognised in another message."""

    exact: frozenset[str] = frozenset()
    """Marks that only the same file has: its name and size, its SHA-256."""
    phash: int | None = None

    def merge(self, other: PictureMarks) -> PictureMarks:
        """What both know of the picture."""
        return PictureMarks(self.exact | other.exact, self.phash if other.phash is None else other.phash)


@dataclass(frozen=True)
class Posting:
    """A message with pictures."""

    message_id: int
    channel_id: int
    pictures: Mapping[str, PictureMarks] = field(default_factory=dict)
    """By `Reference.key`."""

    @property
    def milliseconds(self) -> int:
        """When it was posted, since 2015."""
        return self.message_id >> 22

    def merge(self, other: Posting) -> Posting:
        """What both know of the same message, up to `MAX_PICTURES`."""
        pictures = dict(self.pictures)
        for key, marks in other.pictures.items():
            if key in pictures or len(pictures) < MAX_PICTURES:
                pictures[key] = pictures.get(key, PictureMarks()).merge(marks)
        return replace(self, pictures=pictures)


def find_wave(postings: Iterable[Posting], limits: BurstLimits, message: int | None = None) -> frozenset[int]:
    """The ids of an author's messages that are a wave; empty if there is none.

    A message belongs to it if one of its pictures was posted in `limits.channels` channels within some
    `limits.seconds` that the message lies in, too.

    Args:
        postings: all that are known, in any order.
        limits: of the author.
        message: only what is a wave with this message, by one of its pictures.
    """
    ordered = sorted((each for each in postings if each.pictures), key=lambda posting: posting.message_id)
    if len({posting.channel_id for posting in ordered}) < limits.channels:
        return frozenset()  # the usual case
    groups = [ordered] if limits.any_picture else _copies(ordered)
    found = [_dense(group, limits) for group in groups]
    return frozenset().union(*(each for each in found if message is None or message in each))


def _dense(group: Sequence[Posting], limits: BurstLimits) -> set[int]:
    """Of messages in the order of time, those in a window with enough channels."""
    window: deque[Posting] = deque()
    channels: Counter[int] = Counter()
    found: set[int] = set()
    for posting in group:
        window.append(posting)
        channels[posting.channel_id] += 1
        while posting.milliseconds - window[0].milliseconds > 1000 * limits.seconds:
            channels[window.popleft().channel_id] -= 1
        if sum(count > 0 for count in channels.values()) >= limits.channels:
            found.update(each.message_id for each in window)
    return found


def _copies(ordered: Sequence[Posting]) -> list[list[Posting]]:
    """The messages that show one picture, for each picture: pictures that share a mark, or are nearly the same."""
    pictures = [(posting, marks) for posting in ordered for marks in posting.pictures.values()]
    groups = _Groups(len(pictures))
    first: dict[str, int] = {}
    for place, (_, marks) in enumerate(pictures):
        for mark in marks.exact:
            groups.join(first.setdefault(mark, place), place)
    hashed = [place for place, (_, marks) in enumerate(pictures) if is_distinctive(marks.phash)]
    hashes = np.array([pictures[place][1].phash for place in hashed], np.uint64)
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    for one, other in np.argwhere(np.triu(distances <= MAX_DISTANCE, 1)).tolist():
        groups.join(hashed[one], hashed[other])
    found: dict[int, dict[int, Posting]] = {}
    for place, (posting, _) in enumerate(pictures):
        found.setdefault(groups.of(place), {})[posting.message_id] = posting
    return [list(group.values()) for group in found.values()]


def is_distinctive(phash: int | None) -> bool:
    """Whether a hash tells pictures apart: half of the bits are set in most, nearly none in plain surfaces."""
    return phash is not None and 16 <= phash.bit_count() <= 48


class _Groups:
    """Disjoint sets of numbers (Tarjan's union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def of(self, place: int) -> int:
        while self._parents[place] != place:
            self._parents[place] = self._parents[self._parents[place]]
            place = self._parents[place]
        return place

    def join(self, one: int, other: int) -> None:
        self._parents[self.of(other)] = self.of(one)


@dataclass
class _Author:
    postings: dict[int, Posting] = field(default_factory=dict)
    seen_at: float = 0.0


class BurstTracker:
    """The newest messages with pictures of each author, within bounds that no flood can exceed."""

    def __init__(self) -> None:
        self._guilds: dict[int, OrderedDict[int, _Author]] = {}
        """By server and author, the longest silent ones first."""
        self._owners: dict[int, tuple[int, int]] = {}
        """Message -> its server and author."""
        self._sizes: Counter[int] = Counter()

    def __len__(self) -> int:
        """Messages that are remembered."""
        return len(self._owners)

    def knows(self, guild: int, author: int) -> bool:
        """Whether any message of an author is remembered."""
        return author in self._guilds.get(guild, {})

    def owner(self, message: int) -> tuple[int, int]:
        """Server and author of a message; zeros if it is not remembered."""
        return self._owners.get(message, (0, 0))

    def add(self, guild: int, author: int, posting: Posting, now: float) -> None:
        """Remember a message, or what is known of it besides.

        Args:
            guild: server id.
            author: user id.
            posting: the message.
            now: seconds by any clock that only goes on.
        """
        authors = self._guilds.setdefault(guild, OrderedDict())
        postings = authors.setdefault(author, _Author()).postings
        authors[author].seen_at = now
        authors.move_to_end(author)
        if posting.message_id not in postings:
            self._owners[posting.message_id] = guild, author
            self._sizes[guild] += 1
        known = postings.get(posting.message_id, Posting(posting.message_id, posting.channel_id))
        postings[posting.message_id] = known.merge(posting)
        if len(postings) > MAX_POSTINGS:
            self.remove([min(postings)])
        while len(self) > MAX_TOTAL:
            fullest = max(self._sizes, key=self._sizes.__getitem__)
            self.forget(fullest, next(iter(self._guilds[fullest])))

    def wave(self, guild: int, author: int, limits: BurstLimits, message: int | None = None) -> list[Posting]:
        """An author's messages that are a wave, oldest first. `message`: as for `find_wave`."""
        if not self.knows(guild, author):
            return []
        known = self._guilds[guild][author]
        found = find_wave(known.postings.values(), limits, message)
        return [known.postings[each] for each in sorted(found)]

    def remove(self, messages: Iterable[int]) -> None:
        """Forget messages, such as those that their author has deleted."""
        for message in messages:
            guild, author = self._owners.pop(message, (0, 0))
            if not author:
                continue
            self._sizes[guild] -= 1
            known = self._guilds[guild][author]
            del known.postings[message]
            if not known.postings:
                del self._guilds[guild][author]
            if not self._guilds[guild]:
                del self._guilds[guild], self._sizes[guild]

    def forget(self, guild: int, author: int) -> None:
        """Forget all messages of an author."""
        if self.knows(guild, author):
            self.remove(list(self._guilds[guild][author].postings))

    def expire(self, now: float) -> None:
        """Forget authors who were silent for `KEEP_SECONDS`. `now`: as for `add`."""
        for guild, authors in list(self._guilds.items()):
            while authors and now - next(iter(authors.values())).seen_at > KEEP_SECONDS:
                self.forget(guild, next(iter(authors)))
