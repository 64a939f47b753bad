"""The searches find exactly the pairs that comparing all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dataset import neighbours


def compared(codes: np.ndarray, most: int) -> np.ndarray:
    return np.argwhere(np.triu(np.bitwise_count(codes[:, None] ^ codes[None]) <= most, 1))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(0, 16), st.integers(0, 64))
def test_hamming_finds_every_pair_and_no_other(seed: int, count: int, most: int, loose: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, count, np.uint64) & np.uint64(2**loose - 1)  # few loose bits: much alike
    codes[1::2] = codes[::2][: len(codes[1::2])] ^ (np.uint64(1) << rng.integers(0, 64, count // 2, np.uint64))
    codes = np.unique(codes)
    assert np.array_equal(neighbours.hamming(codes, most), compared(codes, most) if most else np.empty((0, 2)))


def test_hamming_finds_every_pair_in_a_crowd_that_shares_most_keys() -> None:
    rng = np.random.default_rng(0)
    crowd = np.uint64(0xABCDEF0123456789) ^ rng.integers(0, 2**18, 2000, np.uint64)
    codes = np.unique(np.concatenate([crowd, rng.integers(0, 2**64, 2000, np.uint64)]))
    assert len(neighbours.hamming(codes, 4)) > 10_000
    assert np.array_equal(neighbours.hamming(codes, 4), compared(codes, 4))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 200), st.sampled_from([0.0, 0.25, 0.75]), st.integers(1, 12))
def test_box_finds_every_pair_and_no_other(seed: int, count: int, reach: float, spread: int) -> None:
    points = np.random.default_rng(seed).integers(0, 4 * spread, (count, 5)) / 4  # exact in binary: so are the limits
    limits = np.array([reach] * 4 + [0.5])
    found = neighbours.box(points, limits, lambda pairs: pairs[:, 0] % 3 > 0)
    expected = np.argwhere(np.triu((np.abs(points[:, None] - points[None]) <= limits).all(axis=2), 1))
    expected = expected[expected[:, 0] % 3 > 0]
    assert np.array_equal(found[np.lexsort(found.T[::-1])], expected)


def test_box_finds_the_same_pairs_a_slab_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).integers(0, 40, (3000, 3)) / 8
    points[:600] = 1.0  # a crowd
    limits = np.array([0.25, 0.25, 0.125])
    expected = np.argwhere(np.triu((np.abs(points[:, None] - points[None]) <= limits).all(axis=2), 1))
    monkeypatch.setattr(neighbours, "SLAB", 700)
    monkeypatch.setattr(neighbours, "BLOCK", 5000)
    found = neighbours.box(points, limits, lambda pairs: np.ones(len(pairs), bool))
    assert np.array_equal(found[np.lexsort(found.T[::-1])], expected)
