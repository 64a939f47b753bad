"""A made-up board's dump of any size: python tests/benchmarks/board.py TARGET [--scale 1.0] [--bare].

Two dozen tables with Philomena's keys and indexes; README.md tells which of the proportions are known and which are
chosen. The table of contents is pg_dump's own, of an empty board on a server of the wheel's or `--programs`; the rows
are written into it here, packed as pg_dump packs them: no database of that size is made.
Every value follows from a hash of its row's key and the seed, so the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.workspace.files import replacing

sys.path.insert(0, str(Path(__file__).parents[2]))

import dumping
import tables
from making import Keys
from tables import Size

from stages.dump import databases, programs, transfer
from stages.workspace import errors

CHUNK = 16_384
"""Keys of a part."""
QUANTILES = {50: 16, 90: 33, 99: 58}
"""Tags an image, as Derpibooru had in 2024."""


def write(target: Path, size: Size, installed: Path | None = None) -> None:
    """Dump such a board to `target`; `installed`: the folder of other PostgreSQL programs than the wheel's.

    Raises:
        DatabaseError: if PostgreSQL cannot be had, or refuses.
    """
    parts = {
        name: [functools.partial(part, name, size, first) for first in firsts(name, size)] for name in tables.TABLES
    }
    with tempfile.TemporaryDirectory(prefix="mlpy-board-") as folder, replacing(target) as aside:
        empty = Path(folder) / "empty.pgdump"
        contents(empty, size, installed)
        dumping.fill(empty, aside, parts)
    reached = np.percentile(tags_per_image(size), list(QUANTILES)).round().astype(int).tolist()
    sys.stderr.write(f"board: tags an image, p50, p90, p99: {reached}; of a real board {list(QUANTILES.values())}\n")


def contents(empty: Path, size: Size, installed: Path | None) -> None:
    """Dump a board without a row."""
    own = programs._programs
    if installed:
        programs._programs = lambda: installed
    try:
        with databases.new() as database:
            with database.cursor() as cursor:
                cursor.execute(database.SCHEMA + Path(__file__).with_name("board.sql").read_text())
                if size.bare:
                    cursor.execute(Path(__file__).with_name("bare.sql").read_text())
            transfer.pack(database, empty, compression=dumping.LEVEL)
    finally:
        programs._programs = own


def firsts(name: str, size: Size) -> Sequence[int]:
    """The first key of each part of a table."""
    return range(1, tables.TABLES[name][1](size) + 1, CHUNK)


def part(name: str, size: Size, first: int) -> list[object]:
    """Some rows of a table."""
    make, count = tables.TABLES[name]
    return make(size, Keys(np.arange(first, min(first + CHUNK, count(size) + 1)), size.seed))


def tags_per_image(size: Size) -> np.ndarray:
    """Of the first images."""
    ids, _ = part("image_taggings", size, 1)
    return np.unique(ids, return_counts=True)[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that tell a board's size."""
    parser.add_argument("--scale", type=float, default=Size.scale, help="1.0: 3.2 million images; 0.1 by default")
    parser.add_argument("--seed", type=int, default=Size.seed)
    parser.add_argument("--bare", action="store_true", help="without keys, indexes and constraints")
    parser.add_argument("--programs", type=Path, help="as /usr/lib/postgresql/15/bin: whose pg_dump it is to be of")


def asked(options: argparse.Namespace) -> Size:
    """The size that the options tell."""
    return Size(options.scale, options.seed, options.bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    add_options(parser)
    options = parser.parse_args()
    write(options.target, asked(options), options.programs)


if __name__ == "__main__":
    errors.run(main)
