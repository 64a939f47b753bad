"""Finds all similar pairs without comparing all pairs: codes by Hamming distance, points by a box around each.

A million pictures have 5 * 10^11 pairs. Both searches compare only candidates, and find exactly the same pairs as
comparing each with each would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stages.workspace.progress import Progress, track

Codes = NDArray[np.uint64]
Pairs = NDArray[np.int64]
"""[m, 2] two positions per row, the smaller one first."""

BUCKET = 256
"""Most codes with the same key that are compared each with each. Larger buckets are divided by their other bits."""
BLOCK = 8_000_000
"""Approximate number of candidate pairs in memory at once: some 500 MB."""
SLAB = 250_000
"""Most points in a k-d tree."""
MOST_EQUAL_BANDS = 5
"""Longest key that is considered, in bands."""


def hamming(codes: Codes, max_distance: int) -> Pairs:
    """Every pair of distinct 64-bit codes that differ in at most `max_distance` bits.

    The pigeonhole principle reduces this to sorting. Cut the 64 bits into `max_distance + k` bands. Each differing bit
    spoils one band, so two such codes agree in at least k bands. For each choice of k bands:

    1. Sort the codes by the bits of these bands (the key). Candidates are codes with the same key.
    2. Compare each candidate pair in all bits.

    A greater k means longer keys: more sorts, but fewer candidates for each. `_cost` estimates which k is cheapest.

    Source: multi-index hashing (Norouzi, Punjani & Fleet, 2012), which has k = 1. Among millions of codes, too many
    share a single band.

    Args:
        codes: [n], all different.
        max_distance: bits.

    Returns:
        [m, 2] positions in `codes`, each pair once, sorted.
    """
    if max_distance == 0:
        return np.empty((0, 2), np.int64)
    # Several keys may find the same pair: as one number per pair, duplicates are removed by a sort.
    found = [
        first * len(codes) + second
        for first, second in _close_pairs(codes, np.arange(len(codes)), range(64), max_distance)
    ]
    numbers = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return np.stack(np.divmod(numbers, max(len(codes), 1)), axis=1)


def _close_pairs(
    codes: Codes, rows: Pairs, bits: range | list[int], max_distance: int
) -> Iterator[tuple[Pairs, Pairs]]:
    """Close pairs among some rows, by `hamming`'s method; some pairs come twice.

    Args:
        codes: all codes.
        rows: positions of those to compare. They agree in all bits but `bits`.
        bits: numbers of the bits in which they may differ.
        max_distance: bits.

    Yields:
        The smaller and the larger positions of several pairs.
    """
    equal = min(range(MOST_EQUAL_BANDS + 1), key=lambda equal: _cost(len(rows), len(bits), max_distance, equal))
    # A band takes every (max_distance + k)-th bit, so each has bits from all over the hash.
    bands = [list(bits[start :: max_distance + equal]) for start in range(max_distance + equal)]
    # With k = 0 there is one key, (), which all codes share: each is compared with each.
    keys: list[tuple[int, ...]] = list(itertools.combinations(range(max_distance + equal), equal))
    for key in track(keys, "keys", len(keys), "key") if len(rows) == len(codes) else keys:
        key_bits = [bit for band in key for bit in bands[band]]
        mask = np.uint64(sum(1 << bit for bit in key_bits))
        masked = codes[rows] & mask
        order = np.argsort(masked, kind="stable")
        # Runs of equal keys are buckets: where they start, and for each sorted code the end of its bucket. The
        # prepended value differs from the first code, so that a bucket starts there, too.
        starts = np.flatnonzero(np.diff(masked[order], prepend=~masked[order[:1]]))
        sizes = np.diff(starts, append=len(rows))
        ends = np.repeat(np.append(starts[1:], len(rows)), sizes)
        small = sizes <= BUCKET
        if not key:
            small[:] = True
        else:
            # Comparing a large bucket each with each would be quadratic: search it by the bits outside the key.
            other_bits = [bit for bit in bits if bit not in key_bits]
            for start in starts[~small]:
                yield from _close_pairs(codes, rows[order[start : ends[start]]], other_bits, max_distance)
        # All small buckets at once: compare each code with its next neighbour, then with the one after that, and so on,
        # as long as the neighbour is in the same bucket.
        left = np.flatnonzero(np.repeat(small, sizes))
        step = 1
        while (left := left[left + step < ends[left]]).size:
            first, second = rows[order[left]], rows[order[left + step]]
            close = np.bitwise_count(codes[first] ^ codes[second]) <= max_distance
            first, second = first[close], second[close]
            if first.size:
                yield np.minimum(first, second), np.maximum(first, second)
            step += 1


def _cost(codes: int, bits: int, max_distance: int, equal: int) -> float:
    """Estimated work in comparisons, for keys of `equal` bands, as if bits were random.

    A sort costs about 30 comparisons per code. Of all pairs, 2^-(bits in the key) are candidates.
    """
    if equal and max_distance + equal > bits:
        return math.inf  # not a bit for each band
    candidates = 2.0 ** (-bits * equal / (max_distance + equal))
    sort = 30 * codes * (equal > 0)
    return float(math.comb(max_distance + equal, equal) * (sort + codes**2 / 2 * candidates))


def box(points: NDArray[np.float64], reach: NDArray[np.float64], accept: Callable[[Pairs], NDArray[np.bool_]]) -> Pairs:
    """Every pair of points that differ by at most `reach` in each coordinate, and that `accept` confirms.

    k-d trees find the candidates, a slab of space at a time. So memory grows with the accepted pairs, and time with the
    candidates, which are many where points crowd.

    Args:
        points: [n, d].
        reach: [d].
        accept: pairs [m, 2] -> which of them to keep [m].

    Returns:
        [m, 2] positions, each pair once, in no particular order.
    """
    accepted = [np.empty((0, 2), np.int64)]
    # Scaled by the reach, the box is a ball of radius 1 in the maximum norm, which k-d trees know. Scaling rounds, so
    # the radius is a little larger, and candidates are checked with the unscaled values.
    for pairs in _ball_pairs(points / np.maximum(reach, 1e-9), 1 + 1e-6):
        exact = pairs[(np.abs(points[pairs[:, 0]] - points[pairs[:, 1]]) <= reach).all(axis=1)]
        accepted.append(exact[accept(exact)])
    return np.concatenate(accepted)


def _ball_pairs(points: NDArray[np.float64], radius: float) -> Iterator[Pairs]:
    """Pairs within `radius` in each coordinate, each once, in blocks of about `BLOCK`.

    1. Sort the points by their first coordinate, and cut them into slabs.
    2. Estimate a slab's pairs from a sample of its points. If there are too many, halve it and start again.
    3. Find the pairs within the slab, and those between it and the points after it that are within reach.
    """
    order = np.argsort(points[:, 0], kind="stable")
    ordered = points[order]
    reachable = np.searchsorted(ordered[:, 0], ordered[:, 0] + radius, side="right")  # end of what each point reaches
    slabs = [(start, min(start + SLAB, len(points))) for start in range(0, len(points), SLAB)][::-1]
    with Progress("near pairs", len(points)) as progress:
        while slabs:
            start, end = slabs.pop()
            tree = cKDTree(ordered[start:end])
            sample = ordered[start : end : max(1, (end - start) // 1000)]
            estimate = tree.query_ball_point(sample, radius, p=np.inf, return_length=True).mean() * (end - start)
            if estimate > BLOCK and end - start > BUCKET:
                slabs += [((start + end) // 2, end), (start, (start + end) // 2)]
                continue
            inside = start + tree.query_pairs(radius, p=np.inf, output_type="ndarray")
            after = cKDTree(ordered[end : reachable[end - 1]])
            across = tree.sparse_distance_matrix(after, radius, p=np.inf, output_type="ndarray")
            across = np.stack([start + across["i"], end + across["j"]], axis=1)
            yield np.sort(order[np.concatenate([inside, across]).astype(np.int64)], axis=1)
            progress.update(end - start)
