"""Which remembered pictures may be shown by another one: an inverted file over their features, and their PDQ hashes.

Not one of the packages for nearest neighbours: with 48 features a picture, faiss, usearch or hnswlib keep 8 bytes of id
and 16 or more of code or graph for each, over 100 MB for 100,000 pictures. Here a feature takes 13 bytes, a picture
660, and a look-up reads only the lists of its own visual words. Nothing has to be trained or rebuilt: what is new waits
in a short list of its own until there is enough to merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.pictures.copies import SIDE, Affine, Fingerprint, Points, Sighting

WORDS = 1 << 16
MAX_DIFFERING = 20
"""Of the 64 signs of two features that may be the same."""
PROPOSED = 6
"""Pictures whose features agree most that are looked at more closely."""
GUESSES = 2
"""Arrangements of a picture's features that are tried."""
MAX_PAIRS = 150
"""Pairs of features among which an arrangement is looked for."""
MAX_PDQ = 76
"""Differing bits of 256 with which a whole picture is proposed."""
MAX_QUARTER = 22
"""And of its first 64 bits: of two pictures, 32 differ on average."""
BUDGET = 30_000
"""Entries that a look-up reads, and as many of the mirrored picture. Rare words first: common ones say little."""
MERGED = 1000
"""Pictures in the short list before it is merged."""
TOLERANCES = (0.06, 0.04, 0.025, 0.018, 0.012)
"""Of an arrangement, as shares of `SIDE`, while it is refined."""


@dataclass(frozen=True)
class Proposal:
    """A remembered picture that may be there."""

    row: int
    """As `CopyIndex.add` numbered it."""
    mirrored: bool
    places: NDArray[np.int64]
    """Of its features; none if its PDQ hash proposed it."""
    features: NDArray[np.int64]
    """Of the picture that is looked up: of each pair."""
    weights: NDArray[np.float64]
    box: tuple[int, int, int, int] | None = None
    """Where the PDQ hash was taken."""


class _Lists:
    """Features by visual word, of pictures with consecutive numbers."""

    def __init__(
        self, owners: NDArray[np.int32], places: NDArray[np.uint8], words: NDArray[np.uint16], signs: NDArray[np.uint64]
    ) -> None:
        order = np.argsort(words, kind="stable")
        self.owners, self.places, self.signs = owners[order], places[order], signs[order]
        counts = np.bincount(words, minlength=WORDS)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)

    def words(self) -> NDArray[np.uint16]:
        return np.repeat(
            np.arange(WORDS, dtype=np.uint16), self._starts[1:].astype(np.int64) - self._starts[:-1].astype(np.int64)
        )

    def similar(self, words: NDArray[np.uint16], signs: NDArray[np.uint64]) -> tuple[NDArray[np.int64], ...]:
        """Entries and features that may be the same, and how many of their signs differ."""
        flat = words.ravel().astype(np.int64)
        starts = self._starts[flat].astype(np.int64)
        counts = self._starts[flat + 1].astype(np.int64) - starts
        if counts.sum() > BUDGET:
            rare = np.argsort(counts, kind="stable")
            counts[rare[np.cumsum(counts[rare]) > BUDGET]] = 0
        asked = np.repeat(np.arange(len(flat)), counts)
        entries = np.arange(len(asked)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        features = asked // words.shape[1]
        differing = np.bitwise_count(self.signs[entries] ^ signs[features])
        close = np.flatnonzero(differing <= MAX_DIFFERING)
        return entries[close], features[close], differing[close]


class CopyIndex:
    """Remembered pictures by number. Reading is safe in several threads, changing it in one."""

    def __init__(self) -> None:
        self._main = _lists([], 0)
        self._recent: list[Fingerprint] = []
        self._tail = _lists([], 0)
        self._merged = 0
        self._pdq = np.zeros((0, 4), np.uint64)
        self._quarter = np.zeros(0, np.uint64)
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return self._merged + len(self._recent)

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        lists = (self._main, self._tail)
        return self._pdq.nbytes + sum(
            each.owners.nbytes + each.places.nbytes + each.signs.nbytes + each._starts.nbytes for each in lists
        )

    def extend(self, fingerprints: Sequence[Fingerprint]) -> int:
        """Remember pictures. Returns the number of the first; the others follow."""
        first = len(self)
        self._recent += fingerprints
        hashes = [np.frombuffer(each.pdq, np.uint64) for each in fingerprints]
        self._pdq = np.concatenate([self._pdq, np.array(hashes, np.uint64).reshape(-1, 4)])
        self._quarter = np.ascontiguousarray(self._pdq[:, 0])
        self._tail = _lists(self._recent, self._merged)
        if len(self._recent) > MERGED:
            main, tail = self._main, self._tail
            words = np.concatenate([main.words(), tail.words()])
            owners = np.concatenate([main.owners, tail.owners])
            places = np.concatenate([main.places, tail.places])
            self._main = _Lists(owners, places, words, np.concatenate([main.signs, tail.signs]))
            self._merged += len(self._recent)
            self._recent, self._tail = [], _lists([], 0)
        return first

    def remove(self, row: int) -> None:
        """Propose a picture no more."""
        self._gone.add(row)

    def propose(self, seen: Sighting) -> list[Proposal]:
        """The remembered pictures that may be there, likelier ones first."""
        if not len(self):
            return []
        found: list[tuple[float, Proposal]] = []
        for mirrored in (False, True):
            owners, places, features, weights = self._votes(seen.words[int(mirrored)], seen.signs[int(mirrored)])
            if not len(owners):
                continue
            votes = np.bincount(owners, weights, minlength=PROPOSED + 1)
            votes[[row for row in self._gone if row < len(votes)]] = 0
            for row in np.argpartition(-votes, PROPOSED)[:PROPOSED]:
                if votes[row] > 0:
                    pairs = owners == row
                    proposal = Proposal(int(row), mirrored, places[pairs], features[pairs], weights[pairs])
                    found.append((float(votes[row]), proposal))
        found.sort(key=lambda each: -each[0])
        return [proposal for _, proposal in found[:PROPOSED]] + self._of_whole(seen)

    def _votes(self, words: NDArray[np.uint16], signs: NDArray[np.uint64]) -> tuple[NDArray[Any], ...]:
        parts = []
        for lists in (self._main, self._tail):
            entries, features, differing = lists.similar(words, signs)
            parts.append((lists.owners[entries], lists.places[entries], features, 1 - differing / 32))
        owners, places, features, similar = (np.concatenate(each) for each in zip(*parts, strict=True))
        if not len(owners):
            return owners, places, features, similar
        # A feature that many pictures have says little about any of them.
        return owners, places, features, similar / np.sqrt(np.bincount(features)[features])

    def _of_whole(self, seen: Sighting) -> list[Proposal]:
        none = np.zeros(0, np.int64)
        proposals = []
        for box, *hashes in seen.boxes:
            for mirrored, pdq in zip((False, True), hashes, strict=True):
                asked = np.frombuffer(pdq, np.uint64)
                # A quarter of each hash rules most of them out.
                rows = np.flatnonzero(np.bitwise_count(self._quarter ^ asked[0]) <= MAX_QUARTER)
                distances = np.bitwise_count(self._pdq[rows] ^ asked).sum(1)
                distances[[place for place, row in enumerate(rows) if row in self._gone]] = 256
                if len(rows) and distances.min() <= MAX_PDQ:
                    nearest = int(rows[np.argmin(distances)])
                    proposals.append(Proposal(nearest, mirrored, none, none, np.zeros(0), box))
        return proposals


def _lists(fingerprints: Sequence[Fingerprint], first: int) -> _Lists:
    counts = [len(each.words) for each in fingerprints]
    owners = np.repeat(np.arange(first, first + len(counts), dtype=np.int32), counts)
    places = np.concatenate([np.zeros(0, np.uint8), *(np.arange(count, dtype=np.uint8) for count in counts)])
    words = np.concatenate([np.zeros(0, np.uint16), *(each.words for each in fingerprints)])
    signs = np.concatenate([np.zeros(0, np.uint64), *(each.signs for each in fingerprints)])
    return _Lists(owners, places, words, signs)


def placements(proposal: Proposal, kept: Fingerprint, seen: Sighting) -> list[tuple[int, Affine]]:
    """Where a proposed picture may lie, with the number of features that agree; 0 if its PDQ hash proposed it."""
    width = seen.fingerprint.width
    if proposal.box is not None:
        left, top, across, down = proposal.box
        left = width - left - across if proposal.mirrored else left
        return [(0, (np.diag([across / kept.width, down / kept.height]), np.array([left, top], float)))]
    points = seen.points
    if proposal.mirrored:
        points = (points * np.array([-1, 1, 1]) + np.array([width - 1, 0, 0])).astype(np.float32)
    strongest = np.argsort(-proposal.weights)[:MAX_PAIRS]
    places, features = proposal.places[strongest], proposal.features[strongest]
    return _arrangements(kept.points[places], points[features], proposal.weights[strongest], places, features)


def _arrangements(
    ours: Points, theirs: Points, weights: NDArray[np.float64], places: NDArray[np.int64], features: NDArray[np.int64]
) -> list[tuple[int, Affine]]:
    """Each pair of features says how large the copy is and where. Those that say the same are refined together."""
    ratios = theirs[:, 2] / ours[:, 2]
    logs = np.log(ratios)
    shifts = theirs[:, :2] - ratios[:, None] * ours[:, :2]
    errors = ratios[:, None, None] * ours[None, :, :2] + shifts[:, None] - theirs[None, :, :2]
    near = np.hypot(errors[..., 0], errors[..., 1]) < 0.08 * SIDE * np.maximum(ratios, 0.3)[:, None]
    agree = near & (np.abs(logs[:, None] - logs[None]) < 0.5)
    used = np.zeros(len(ours), bool)
    found: list[tuple[int, Affine]] = []
    for first in np.argsort(-(agree @ weights)):
        if used[first]:
            continue
        if len(found) == GUESSES:
            break
        same = agree[first].copy()
        used |= same
        turn, shift = np.eye(2) * ratios[first], shifts[first].astype(np.float64)
        for tolerance in TOLERANCES:
            if len(set(places[same])) < 2:
                break
            fitted = _fit(ours[same, :2], theirs[same, :2])
            scale = float(abs(np.linalg.det(fitted[0])) ** 0.5)
            if not 0.15 < scale < 6 or abs(np.arctan2(fitted[0][1, 0], fitted[0][0, 0])) > 0.35:
                break
            turn, shift = fitted
            errors = ours[:, :2] @ turn.T + shift - theirs[:, :2]
            same = np.hypot(errors[:, 0], errors[:, 1]) < tolerance * SIDE * max(scale, 0.4)
            same &= np.abs(logs - np.log(scale)) < 0.5
        found.append((min(len(set(places[same])), len(set(features[same]))), (turn, shift)))
    return found


def _fit(ours: Points, theirs: Points) -> Affine:
    """The turn, scale and shift between points, by least squares."""
    our_mean, their_mean = ours.mean(0), theirs.mean(0)
    our, their = ours - our_mean, theirs - their_mean
    size = float((our**2).sum()) + 1e-6
    along = float((our * their).sum()) / size
    across = float((our[:, 0] * their[:, 1] - our[:, 1] * their[:, 0]).sum()) / size
    turn = np.array([[along, -across], [across, along]])
    return turn, their_mean - turn @ our_mean
