"""Generate the dump of a synthetic board of any size: python tests/benchmarks/board.py TARGET [--scale 1.0] [--bare].

It has two dozen tables with Philomena's keys and indexes; README.md says which proportions come from a real board and
which are assumptions. pg_dump, from the wheel or from `--programs`, writes the table of contents of an empty board; the
rows are compressed and inserted here, as pg_dump would, so that no database of that size is needed.
Every value is a hash of its row's key and the seed, so the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import dumping
import tables
from making import Keys
from tables import Size

from stages.dump import databases, lite, programs
from stages.philomena.board import SCHEMA
from stages.workspace import errors
from stages.workspace.files import replacing

PART_KEYS = 16_384
"""Keys in a part of a table."""
QUANTILES = {50: 16, 90: 33, 99: 58}
"""Percentile -> tags per image on Derpibooru in 2024."""


def write(target: Path, size: Size, installed: Path | None = None) -> None:
    """Write a board's dump to `target`. `installed` is a folder of PostgreSQL programs to use in place of the wheel's.

    Raises:
        DatabaseError: if PostgreSQL cannot be found or started, or reports an error.
    """
    parts = {
        name: [functools.partial(part, name, size, first) for first in first_keys(name, size)] for name in tables.TABLES
    }
    with tempfile.TemporaryDirectory(prefix="mlpy-board-") as folder, replacing(target) as aside:
        empty = Path(folder) / "empty.pgdump"
        dump_empty_board(empty, size, installed)
        dumping.fill(empty, aside, parts)
    generated = np.percentile(tags_per_image(size), list(QUANTILES)).round().astype(int).tolist()
    sys.stderr.write(f"board: tags per image, p50, p90, p99: {generated}; on a real board {list(QUANTILES.values())}\n")


def dump_empty_board(empty: Path, size: Size, installed: Path | None) -> None:
    """Dump a board without rows."""
    original = programs._programs
    if installed:
        programs._programs = lambda: installed
    try:
        with databases.new() as database:
            with database.cursor() as cursor:
                cursor.execute(SCHEMA + Path(__file__).with_name("board.sql").read_text())
                if size.bare:
                    cursor.execute(Path(__file__).with_name("bare.sql").read_text())
            lite.pack(database, empty, compression=dumping.LEVEL)
    finally:
        programs._programs = original


def first_keys(name: str, size: Size) -> Sequence[int]:
    """The first key of each part of a table."""
    return range(1, tables.TABLES[name][1](size) + 1, PART_KEYS)


def part(name: str, size: Size, first: int) -> list[object]:
    """The rows of one part of a table, column by column."""
    make, count = tables.TABLES[name]
    return make(size, Keys(np.arange(first, min(first + PART_KEYS, count(size) + 1)), size.seed))


def tags_per_image(size: Size) -> np.ndarray:
    """Tags per image, for the first part of the images."""
    ids, _ = part("image_taggings", size, 1)
    return np.unique(ids, return_counts=True)[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a board's size to a command."""
    parser.add_argument(
        "--scale", type=float, default=Size.scale, help="1.0 is 3.2 million images (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Size.seed)
    parser.add_argument("--bare", action="store_true", help="leave out keys, indexes and constraints")
    parser.add_argument(
        "--programs", type=Path, help="folder of the pg_dump to use, for example /usr/lib/postgresql/15/bin"
    )


def size_of(options: argparse.Namespace) -> Size:
    """The size that the options describe."""
    return Size(options.scale, options.seed, options.bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    add_options(parser)
    options = parser.parse_args()
    write(options.target, size_of(options), options.programs)


if __name__ == "__main__":
    errors.run(main)
