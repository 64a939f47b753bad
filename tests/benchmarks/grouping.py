"""CPU seconds and memory of grouping: python tests/benchmarks/grouping.py [ROWS ...] [--phash-max-distance 64].

Each size runs in a process of its own, so that its peak memory is its own, too.

The rows are generated in a board's proportions: the corners of a picture have correlated brightness, a sixth is line
art on white, some are blank; aspect ratios are common ones; 4 % are near-duplicates, 1 % are simple pictures with
similar hashes; few artists draw much and many little, some in numbered series.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))

from stages.dataset import grouping

WEIGHTS = np.tile([0.85, 0.15], 5) / 5
took: dict[str, float] = {}
"""Step -> CPU seconds."""


@contextmanager
def timed(name: str) -> Iterator[None]:
    start = time.process_time()  # CPU time, which other processes on the machine do not change
    yield
    took[name] = time.process_time() - start


def flipped(hashes: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """The hashes with up to `bits` bits of each flipped."""
    for _ in range(bits):
        bit = np.uint64(1) << rng.integers(0, 64, len(hashes), np.uint64)
        hashes = hashes ^ bit * rng.integers(0, 2, len(hashes), np.uint64)
    return hashes


def generate(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, pa.ChunkedArray, pa.ChunkedArray]:
    """Corners and aspect [n, 5], perceptual hashes [n], artists, names."""
    kind = rng.random(rows)
    mean = np.where(kind < 0.16, 250, rng.normal(130, 45, rows))[:, None]
    spread = np.where(kind < 0.16, 4, rng.gamma(3, 9, rows))[:, None]
    corners = np.clip(mean + spread * rng.normal(size=(rows, 4)), 0, 255)
    corners[kind < 0.005] = 255.0
    common = np.array([1, 4 / 3, 3 / 4, 16 / 9, 9 / 16, 1.414, 0.707, 0.8])
    aspect = np.where(rng.random(rows) < 0.4, rng.choice(common, rows), np.exp(rng.normal(0, 0.35, rows)))
    hashes = rng.integers(0, 2**64, rows, np.uint64)
    crowds = rng.integers(0, 2**64, 200, np.uint64)
    simple = rng.random(rows) < 0.01
    hashes[simple] = flipped(rng.choice(crowds, simple.sum()), 8, rng)
    near = np.flatnonzero(rng.random(rows) < 0.04)
    of = (near * rng.random(len(near))).astype(int)
    hashes[near] = flipped(hashes[of], 4, rng)
    corners[near] = np.clip(corners[of] + rng.uniform(-0.5, 0.5, (len(near), 4)), 0, 255)
    aspect[near] = aspect[of]
    artists = (rows / 15 * rng.random(rows) ** 3).astype(int)  # the first has 2.5 % of a million
    artists[near] = artists[of]
    numbered = rng.random(rows) < 0.3
    titles = np.where(numbered, rng.integers(0, 50, rows), rng.integers(0, 2**40, rows))
    names = [f"t{title:x}x_{number}.png" for title, number in zip(titles, rng.integers(0, 999, rows), strict=True)]
    known = pa.array([f"a{artist}" for artist in artists], mask=rng.random(rows) < 0.15)
    return np.column_stack([corners, aspect]), hashes, pa.chunked_array([known]), pa.chunked_array([names])


def measure(rows: int, max_distance: int) -> None:
    rng = np.random.default_rng(0)
    corners, hashes, artists, names = generate(rows, rng)
    ids = np.cumsum(rng.integers(1, 3, rows))
    digests = [pa.array([f"{value:064x}" for value in rng.integers(0, rows * 300, rows)])]
    with timed("equal"):
        rules = [grouping.by_value("bytes", pa.chunked_array(digests, pa.string()))]
    with timed("series"):
        rules.append(grouping.by_value("series", grouping.series(artists, names)))
    with timed("hash"):
        rules.append(grouping.by_perceptual_hash(hashes, 4))
    with timed("intensities"):
        reach = np.array([0.75] * 4 + [0.05])
        rules.append(grouping.by_intensities(corners, reach, hashes, max_distance))
    with timed("assign"):
        preferred = grouping.bucket_preferences(ids, 0, WEIGHTS)
        group, bucket = grouping.assign(rules, preferred, WEIGHTS, (rng.random(rows) < 0.2).astype(np.int64))
    with timed("check"):
        leaking = grouping.leaking_rules(rules, bucket)
    if leaking:
        sys.exit(f"leaks by {leaking}")
    sizes = np.unique(group[group >= 0], return_counts=True)[1]
    cells = [f"{rows:,}", str(max_distance), *(f"{took[name]:.1f}" for name in took), f"{sum(took.values()):.1f}"]
    cells += [f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}"]
    cells += [f"{rules[2].pairs():,}", f"{rules[3].pairs():,}", f"{sizes.max():,}", f"{(bucket < 0).mean():.1%}"]
    print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201 - the command's answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--phash-max-distance", type=int, default=16)
    options = parser.parse_args()
    if len(options.rows) == 1:
        return measure(options.rows[0], options.phash_max_distance)
    head = "rows|phash_max_distance|equal s|series s|hash s|intensities s|assign s|check s|all s|peak GB"
    head += "|pairs by hash|pairs by intensities|largest group|cross-split links"
    print(f"| {head.replace('|', ' | ')} |\n|{'---|' * (head.count('|') + 1)}", flush=True)  # noqa: T201 - likewise
    for rows in options.rows:  # a process each, for its peak of memory
        distance = ["--phash-max-distance", str(options.phash_max_distance)]
        subprocess.run([sys.executable, __file__, str(rows), *distance], check=True)
    return None


if __name__ == "__main__":
    main()
