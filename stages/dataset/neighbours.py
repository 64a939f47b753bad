"""All pairs that are alike, without comparing all pairs: codes by Hamming distance, points by a box around each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

Codes = NDArray[np.uint64]
Pairs = NDArray[np.int64]
"""[m, 2]: each row two positions, the smaller one first."""

BUCKET = 256
"""Codes that share a key and are compared each with each; a larger bucket is looked at by its other bits."""
BLOCK = 8_000_000
"""Candidates held at once, about: some 500 MB."""
SLAB = 250_000
"""Points in a k-d tree, at most."""


def hamming(codes: Codes, most: int) -> Pairs:
    """Every pair among distinct 64-bit codes that differs in at most `most` bits.

    Pigeonhole: cut the bits into `most + k` bands, and two such codes agree in at least k of them. So each choice
    of k bands is a key to sort by, and only codes with the same key are compared. The greater k, the more keys and
    the fewer comparisons; the cheapest is taken. (The multi-index hashing of Norouzi, Punjani & Fleet, 2012, with k
    bands a key, for millions of codes share any single band.)
    """
    if most == 0:
        return np.empty((0, 2), np.int64)
    found = [first * len(codes) + second for first, second in _alike(codes, np.arange(len(codes)), range(64), most)]
    keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return np.stack(np.divmod(keys, max(len(codes), 1)), axis=1)


def box(points: NDArray[np.float64], reach: NDArray[np.float64], accept: Callable[[Pairs], NDArray[np.bool_]]) -> Pairs:
    """Every pair of `points` [n, d] that differs by at most `reach` [d] in every coordinate and that `accept` takes.

    k-d trees find the candidates, a slab of space at a time, so memory follows the pairs that are accepted. Time
    follows the candidates: where points crowd, these are more than the points.
    """
    found = [np.empty((0, 2), np.int64)]
    for pairs in _boxed(points / np.maximum(reach, 1e-9), 1 + 1e-6):  # a little too far, for rounding ...
        exact = pairs[(np.abs(points[pairs[:, 0]] - points[pairs[:, 1]]) <= reach).all(axis=1)]  # ... which this mends
        found.append(exact[accept(exact)])
    return np.concatenate(found)


def _boxed(points: NDArray[np.float64], radius: float) -> Iterator[Pairs]:
    """Pairs within `radius` in every coordinate, each once, about `BLOCK` at a time."""
    order = np.argsort(points[:, 0], kind="stable")
    ordered = points[order]
    ahead = np.searchsorted(ordered[:, 0], ordered[:, 0] + radius, side="right")
    slabs = [(start, min(start + SLAB, len(points))) for start in range(0, len(points), SLAB)][::-1]
    with tqdm(total=len(points), desc="near pairs", disable=None, leave=False) as progress:
        while slabs:
            start, end = slabs.pop()
            tree = cKDTree(ordered[start:end])
            sampled = ordered[start : end : max(1, (end - start) // 1000)]
            crowd = tree.query_ball_point(sampled, radius, p=np.inf, return_length=True).mean() * (end - start)
            if crowd > BLOCK and end - start > BUCKET:
                slabs += [((start + end) // 2, end), (start, (start + end) // 2)]
                continue
            inside = start + tree.query_pairs(radius, p=np.inf, output_type="ndarray")
            beyond = cKDTree(ordered[end : ahead[end - 1]])
            across = tree.sparse_distance_matrix(beyond, radius, p=np.inf, output_type="ndarray")
            across = np.stack([start + across["i"], end + across["j"]], axis=1)
            yield np.sort(order[np.concatenate([inside, across]).astype(np.int64)], axis=1)
            progress.update(end - start)


def _alike(codes: Codes, rows: Pairs, bits: range | list[int], most: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs (smaller row, larger row) among `rows`, whose codes differ in no other bits than `bits`; some twice."""
    equal = min(range(6), key=lambda equal: _cost(len(rows), len(bits), most, equal))
    bands = [list(bits[start :: most + equal]) for start in range(most + equal)]
    keys: list[tuple[int, ...]] = list(itertools.combinations(range(most + equal), equal))  # none equal: one key, ()
    for key in tqdm(keys, "keys", disable=None if len(rows) == len(codes) else True, leave=False):
        chosen = [bit for band in key for bit in bands[band]]
        mask = np.uint64(sum(1 << bit for bit in chosen))
        masked = codes[rows] & mask
        order = np.argsort(masked, kind="stable")
        starts = np.flatnonzero(np.diff(masked[order], prepend=~masked[order[:1]]))
        ends = np.repeat(np.append(starts[1:], len(rows)), np.diff(starts, append=len(rows)))
        light = np.diff(starts, append=len(rows)) <= BUCKET
        if not key:
            light[:] = True
        else:
            for start in starts[~light]:
                rest = [bit for bit in bits if bit not in chosen]
                yield from _alike(codes, rows[order[start : ends[start]]], rest, most)
        live = np.flatnonzero(np.repeat(light, np.diff(starts, append=len(rows))))
        step = 1
        while (live := live[live + step < ends[live]]).size:
            first, second = rows[order[live]], rows[order[live + step]]
            close = np.bitwise_count(codes[first] ^ codes[second]) <= most
            first, second = first[close], second[close]
            if first.size:
                yield np.minimum(first, second), np.maximum(first, second)
            step += 1


def _cost(codes: int, bits: int, most: int, equal: int) -> float:
    """Comparisons, about, if a key is `equal` of `most + equal` bands and bits are as good as random."""
    if equal and most + equal > bits:
        return math.inf
    shared = 2.0 ** (-bits * equal / (most + equal))
    return float(math.comb(most + equal, equal) * (30 * codes * (equal > 0) + codes**2 / 2 * shared))
