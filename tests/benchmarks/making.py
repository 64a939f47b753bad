"""Synthetic columns: every value is a hash of its row's key, its purpose (`salt`), and a seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

EPOCH = np.datetime64("2012-01-02T00:00:00", "s")
SECONDS = 4400 * 86_400
"""A board's age in seconds."""
POOL = 1 << 21
"""Characters of prose that all texts are slices of."""
SYLLABLES = (
    "ba be bo ca ce co da de do fa fi ga go ha hi ho la le li lo ma me mi mo na ne ni no pa pe po ra re ri ro sa "
)
SYLLABLES += "se si so ta te ti to va ve vi vo the ing and er on al st wh sh ck rd ght y ly nt"

Column = np.ndarray | Sequence[object]
Columns = list[Column]
"""Rows, column by column."""


class Keys:
    """The keys of some rows: integers from 1."""

    def __init__(self, keys: np.ndarray, seed: int) -> None:
        self.keys = keys
        self.seed = seed

    def __len__(self) -> int:
        return len(self.keys)

    def bits(self, salt: int) -> np.ndarray:
        """64 pseudorandom bits for each row (splitmix64's finaliser)."""
        mixed = self.keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= np.uint64((salt * 1_000_003 + self.seed) * 0xD1342543DE82EF95 & (1 << 64) - 1)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return mixed ^ mixed >> np.uint64(31)

    def chance(self, salt: int) -> np.ndarray:
        """Uniform in [0, 1)."""
        return (self.bits(salt) >> np.uint64(11)) * 2.0**-53

    def whole(self, salt: int, last: int) -> np.ndarray:
        """Uniform integers from 1 to `last`."""
        return 1 + (self.chance(salt) * last).astype(np.int64)

    def zipf(self, salt: int, first: int, last: int) -> np.ndarray:
        """Integers from `first` to `last` by Zipf's law: the nth has a probability of roughly 1 / n."""
        return first - 1 + np.exp(self.chance(salt) * np.log(last - first + 2)).astype(np.int64)

    def normal(self, salt: int) -> np.ndarray:
        """Standard normal (Box-Muller)."""
        return np.sqrt(-2 * np.log1p(-self.chance(salt))) * np.cos(2 * np.pi * self.chance(salt + 1000))

    def moment(self, part: np.ndarray) -> np.ndarray:
        """The time at which this fraction of the board's age had passed."""
        return EPOCH + (part * SECONDS).astype(np.int64)

    def later(self, than: np.ndarray, salt: int, days: float) -> np.ndarray:
        """A time after another one, by an exponentially distributed delay with a mean of `days`."""
        return than + (-np.log1p(-self.chance(salt)) * days * 86_400).astype(np.int64)

    def text(self, salt: int, shortest: int, longest: int) -> list[str]:
        """Slices of prose, of uniformly distributed length."""
        pool = prose(self.seed)
        starts = (self.chance(salt) * (POOL - longest)).astype(np.int64)
        lengths = shortest + (self.chance(salt + 1000) * (longest - shortest)).astype(np.int64)
        ends = starts + lengths
        return [pool[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def select(self, mask: np.ndarray) -> Keys:
        """The keys at which a boolean mask is true."""
        return Keys(self.keys[mask], self.seed)

    def repeat(self, counts: np.ndarray) -> tuple[np.ndarray, Keys]:
        """`counts` new keys for each key (at most 1024): the index of each new key's owner, and the new keys."""
        counts = np.minimum(counts, 1024)
        owners = np.repeat(np.arange(len(self)), counts)
        place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, Keys(self.keys[owners] << 10 | place, self.seed)


@functools.cache
def prose(seed: int) -> str:
    """Words of random syllables, by Zipf's law; they compress about as well as English."""
    syllables = SYLLABLES.split()
    keys = Keys(np.arange(1, 30_001), seed)
    parts = [[syllables[i - 1] for i in keys.whole(900 + n, len(syllables)).tolist()] for n in range(4)]
    words = ["".join(word[: 1 + i % 4]) for i, word in enumerate(zip(*parts, strict=True))]
    drawn = Keys(np.arange(1, POOL // 2), seed).zipf(910, 1, len(words)).tolist()
    return " ".join(words[i - 1] for i in drawn)[:POOL]


def hexadecimal(keys: Keys, salt: int) -> list[str]:
    """512 bits as 128 digits, like a SHA-512."""
    digits = np.stack([keys.bits(salt + n) for n in range(8)], axis=1).tobytes().hex()
    return [digits[start : start + 128] for start in range(0, len(digits), 128)]


def chosen(number: np.ndarray, names: Sequence[str], other: str) -> np.ndarray:
    """The name at each position, counted from 1; `other` beyond the last."""
    return np.array([*names, other])[np.minimum(number - 1, len(names))]


def where(condition: np.ndarray, texts: Sequence[str], other: str | None) -> list[str | None]:
    """`np.where` for texts, which may be None."""
    return [text if here else other for here, text in zip(condition.tolist(), texts, strict=True)]
