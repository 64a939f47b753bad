"""Compare restore and extract with the documented way: python tests/benchmarks/restoring.py [--scale 0.1] [--pairs 3].

Documented: a new server with PostgreSQL's default settings; `createdb`; `pg_restore -O -d`, as the boards' dump pages
say, with the dump's own keys and indexes; then the 2020 project's SELECTs (documented.sql), which list id|format|path.
The time to create and start that server is measured but not counted. Ours: `python -m stages.restore` and `python -m
stages.extract` with an empty cache. All of it is counted: starting the processes and the server, hashing the dump,
writing lite.pgdump, and a catalogue with sizes, hashes, tags and artists, which the documented way does not produce.

Both run in the same folder, and in each pair the other one starts. Both must find the same ids. The exit code is 1 if
ours is less than --goal times as fast in the median.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import board
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from watching import watch

from stages.config import compose
from stages.dump import archive, databases, postgres
from stages.dump.postgres import Server
from stages.dump.programs import binary
from stages.dump.tables import needed_tables
from stages.workspace import errors, paths

ROOT = Path(__file__).parents[2]
COLUMNS = (
    "pg_restore",
    "SELECTs",
    "documented s",
    "restore",
    "extract",
    "ours s",
    "times faster",
    "disk GB",
    "ours GB",
)
LABELS = ("flagged", "safe")


class Measured:
    """One way's seconds in each part, the peak memory of its Python processes in MB, and its disk space in GB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}
        self.gigabytes = 0.0

    def command(self, part: str, words: Sequence[str | Path], folder: Path, **environment: str) -> None:
        """Run a command. Its peak memory includes its child processes, pg_dump and pg_restore, but no server."""
        done = watch(words, folder, {**clean(), **environment})
        if done.code:
            sys.exit(f"{part} failed with exit code {done.code}")
        self.seconds[part], self.megabytes[part] = done.seconds, done.megabytes

    def total(self) -> float:
        return self.seconds.get("createdb", 0) + self.seconds["restore"] + self.seconds["extract"]

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


def clean() -> dict[str, str]:
    """The environment without a configured server, and with log messages off."""
    removed = (databases.URL, "MLPY_LOG", "DVC_STAGE")
    kept = {name: value for name, value in os.environ.items() if name not in removed and not name.startswith("PG")}
    return {**kept, "PYTHONPATH": str(ROOT), "MLPY_LOG": "WARNING"}


@contextlib.contextmanager
def default_server(folder: Path) -> Iterator[Server]:
    """A new server with PostgreSQL's default settings."""
    settings = postgres.SETTINGS
    postgres.SETTINGS = "\nlisten_addresses = ''\n"
    try:
        with postgres.cluster(folder) as server:
            yield server
    finally:
        postgres.SETTINGS = settings
        postgres.delete(folder)


def documented(folder: Path, source: Path) -> Measured:
    """Run the documented way."""
    run = Measured()
    with contextlib.ExitStack() as stack:
        with run.timed("server"):
            server = stack.enter_context(default_server(folder / "server"))
        with run.timed("createdb"), contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE board")
        dsn = server.dsn("board")
        run.command("restore", [binary("pg_restore"), "-O", "-d", dsn, source], folder)
        script = Path(__file__).with_name("documented.sql")
        run.command("extract", [binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", script], folder)
        run.gigabytes = disk_space(folder / "server")
    for label in LABELS:
        (folder / f"{label}.csv").replace(folder.parent / f"{label}.csv")
    return run


def ours(folder: Path, source: Path) -> Measured:
    """Run our two stages."""
    run = Measured()
    for stage in ("restore", "extract"):
        run.command(stage, [sys.executable, "-m", f"stages.{stage}"], folder, MLPY_CACHE=str(folder / "cache"))
    run.gigabytes = disk_space(folder / "cache")
    (folder / paths.IMAGES).replace(folder.parent / "ours.parquet")
    return run


def disk_space(folder: Path) -> float:
    """Disk space of a folder in GB."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e9


def measure(way: str, folder: Path, source: Path, text: str) -> Measured:
    """Run one way in a new folder; the images that it finds are kept beside that."""
    with tempfile.TemporaryDirectory(prefix=f"{way}-", dir=folder) as name:
        (Path(name) / paths.PARAMS).write_text(text)
        run = {"documented": documented, "ours": ours}[way](Path(name), source)
    os.sync()  # so that the next run does not pay for this one's writes
    seconds = ", ".join(f"{part} {took:.1f} s" for part, took in run.seconds.items())
    sys.stderr.write(f"{way}: {seconds}, {run.gigabytes:.1f} GB\n")
    return run


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's answer


def compare(folder: Path, source: Path, options: argparse.Namespace) -> bool:
    """Measure and print the pairs; returns whether the goal is met."""
    say(f"A dump of {size_of_dump(source)}.\n")
    os.chdir(ROOT)
    chosen = ["policy=mlpy2020", "extract.formats=[png,jpeg,gif,svg,webm]", f"restore.dump={source}"]
    text = compose.compose(["source=derpibooru", *chosen])
    if not options.pairs:
        alone = measure("ours", folder, source, text)
        say(f"Ours alone, without a warm-up: {', '.join(f'{part} {s:.1f} s' for part, s in alone.seconds.items())}.")
        report_memory([alone])
        return True
    for way in ("documented", "ours") if options.warm_up else ():
        measure(way, folder, source, text)
    say(f"| pair | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    pairs = []
    for number in range(1, options.pairs + 1):
        order = ("documented", "ours") if number % 2 else ("ours", "documented")
        pairs.append({way: measure(way, folder, source, text) for way in order})
        counts = compared(folder)
        say(f"| {number} | {' | '.join(cells(pairs[-1]['documented'], pairs[-1]['ours']))} |")
    times = [pair["documented"].total() / pair["ours"].total() for pair in pairs]
    say(f"\nIn the median {statistics.median(times):.1f} times faster ({min(times):.1f} to {max(times):.1f}).")
    say(f"The same ids: {', '.join(f'{count:,} {label}' for label, count in counts.items())}.")
    report_memory([pair["ours"] for pair in pairs])
    return statistics.median(times) >= options.goal


def report_memory(runs: Sequence[Measured]) -> None:
    for part in ("restore", "extract"):
        say(f"Peak memory of {part}: {max(run.megabytes[part] for run in runs):.0f} MB.")


def size_of_dump(source: Path) -> str:
    read = archive.read(source)
    needed = sum(read.packed_size(table.rows) for table in needed_tables(read))
    return f"{read.size / 1e6:.0f} MB, {needed / read.size:.0%} of them in tables that extract needs"


def compared(folder: Path) -> dict[str, int]:
    """Label -> the number of its images; exits if the two ways found different ones."""
    table = pq.read_table(folder / "ours.parquet", columns=["image_id", "label"])
    counts = {}
    for label in LABELS:
        ours = table["image_id"].filter(pc.equal(table["label"], label)).to_numpy()
        theirs = np.loadtxt(folder / f"{label}.csv", np.int64, delimiter="|", usecols=0, ndmin=1)
        if not np.array_equal(np.sort(theirs), ours):
            sys.exit(f"the two ways differ for {label}: {len(theirs)} and {len(ours)} images")
        counts[label] = len(ours)
    return counts


def cells(documented: Measured, ours: Measured) -> Iterator[str]:
    """The cells of a row of the table."""
    for run in (documented, ours):
        yield from (f"{took:.1f}" for took in (run.seconds["restore"], run.seconds["extract"], run.total()))
    yield f"{documented.total() / ours.total():.1f}"
    yield from (f"{run.gigabytes:.1f}" for run in (documented, ours))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, help="dump written by board.py (default: generate one)")
    parser.add_argument(
        "--pairs", type=int, default=3, help="pairs of runs; 0 measures ours alone (default: %(default)s)"
    )
    parser.add_argument("--no-warm-up", dest="warm_up", action="store_false", help="count the first runs, too")
    parser.add_argument(
        "--goal", type=float, default=5, help="how many times faster ours must be (default: %(default)s)"
    )
    board.add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlpy-restoring-") as name:
        source = options.dump.absolute() if options.dump else Path(name) / "board.pgdump"
        if not options.dump:
            os.environ["MLPY_CACHE"] = f"{name}/cache"
            board.write(source, board.size_of(options), options.programs)
        return 0 if compare(Path(name), source, options) else 1


if __name__ == "__main__":
    errors.run(main)
