"""Restore and extract against the documented way: python tests/benchmarks/restoring.py [--scale 0.1] [--pairs 3].

Documented: a server with PostgreSQL's own settings, made anew; `createdb`; `pg_restore -O -d`, as the dump pages
say, with the dump's own keys and indexes; the 2020 project's SELECTs (documented.sql) into lists of id|format|path.
Making and starting that server is told but not counted. Ours: `python -m stages.restore` and `python -m stages.extract`
with an empty cache, from the start of the process to its end: our server made and started, the dump hashed, lite.pgdump
written, and a catalogue with sizes, hashes, tags and artists, of which the documented way has nothing.

Both work in one folder, in turns, and who goes first changes; both must find the same ids. Exit code 1 if ours is not
--goal times as fast in the median.
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
from stages.dump import archive, databases, postgres, transfer
from stages.dump.postgres import Server, binary
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


class Run:
    """One way's seconds, part by part, and the greatest memory of any of its Python processes, in MB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}
        self.gigabytes = 0.0

    def command(self, part: str, words: Sequence[str | Path], folder: Path, **environment: str) -> None:
        """Run a command to its end. Its peak counts what it waited for, pg_dump and pg_restore, but no server."""
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
    """Our environment, without a server that is named in it, and quiet."""
    named = (databases.URL, "MLPY_LOG", "DVC_STAGE")
    kept = {name: value for name, value in os.environ.items() if name not in named and not name.startswith("PG")}
    return {**kept, "PYTHONPATH": str(ROOT), "MLPY_LOG": "WARNING"}


@contextlib.contextmanager
def server_as_it_comes(folder: Path) -> Iterator[Server]:
    """A new server with the settings that initdb writes."""
    settings = postgres.SETTINGS
    postgres.SETTINGS = "\nlisten_addresses = ''\n"
    try:
        with postgres.cluster(folder) as server:
            yield server
    finally:
        postgres.SETTINGS = settings
        postgres.delete(folder)


def documented(folder: Path, source: Path) -> Run:
    """The documented way."""
    run = Run()
    with contextlib.ExitStack() as stack:
        with run.timed("server"):
            server = stack.enter_context(server_as_it_comes(folder / "server"))
        with run.timed("createdb"), contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE board")
        dsn = server.dsn("board")
        run.command("restore", [binary("pg_restore"), "-O", "-d", dsn, source], folder)
        script = Path(__file__).with_name("documented.sql")
        run.command("extract", [binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", script], folder)
        run.gigabytes = used(folder / "server")
    for label in LABELS:
        (folder / f"{label}.csv").replace(folder.parent / f"{label}.csv")
    return run


def ours(folder: Path, source: Path) -> Run:
    """Our two stages."""
    run = Run()
    for stage in ("restore", "extract"):
        run.command(stage, [sys.executable, "-m", f"stages.{stage}"], folder, MLPY_CACHE=str(folder / "cache"))
    run.gigabytes = used(folder / "cache")
    (folder / paths.IMAGES).replace(folder.parent / "ours.parquet")
    return run


def used(folder: Path) -> float:
    """Gigabytes of disk that a folder takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e9


def measured(way: str, folder: Path, source: Path, text: str) -> Run:
    """Run a way in a new folder; what it found stays."""
    with tempfile.TemporaryDirectory(prefix=f"{way}-", dir=folder) as name:
        (Path(name) / paths.PARAMS).write_text(text)
        run = {"documented": documented, "ours": ours}[way](Path(name), source)
    os.sync()  # what this one left for the disk to do is not the next one's burden
    told = ", ".join(f"{part} {took:.1f} s" for part, took in run.seconds.items())
    sys.stderr.write(f"{way}: {told}, {run.gigabytes:.1f} GB\n")
    return run


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's answer


def compare(folder: Path, source: Path, options: argparse.Namespace) -> bool:
    """Measure, tell, and say whether the goal is met."""
    say(f"A dump of {described(source)}.\n")
    os.chdir(ROOT)
    chosen = ["policy=mlpy2020", "extract.formats=[png,jpeg,gif,svg,webm]", f"restore.dump={source}"]
    text = compose.compose(["source=derpibooru", *chosen])
    if not options.pairs:
        alone = measured("ours", folder, source, text)
        say(f"Ours alone, without a warm-up: {', '.join(f'{part} {s:.1f} s' for part, s in alone.seconds.items())}.")
        tell_memory([alone])
        return True
    for way in ("documented", "ours") if options.warm_up else ():
        measured(way, folder, source, text)
    say(f"| pair | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    pairs = []
    for number in range(1, options.pairs + 1):
        order = ("documented", "ours") if number % 2 else ("ours", "documented")
        pairs.append({way: measured(way, folder, source, text) for way in order})
        counts = compared(folder)
        say(f"| {number} | {' | '.join(cells(pairs[-1]['documented'], pairs[-1]['ours']))} |")
    times = [pair["documented"].total() / pair["ours"].total() for pair in pairs]
    say(f"\nIn the median {statistics.median(times):.1f} times faster ({min(times):.1f} to {max(times):.1f}).")
    say(f"The same ids: {', '.join(f'{count:,} {label}' for label, count in counts.items())}.")
    tell_memory([pair["ours"] for pair in pairs])
    return statistics.median(times) >= options.goal


def tell_memory(runs: Sequence[Run]) -> None:
    for part in ("restore", "extract"):
        say(f"Peak memory of {part}: {max(run.megabytes[part] for run in runs):.0f} MB.")


def described(source: Path) -> str:
    read = archive.read(source)
    sizes = {id: end - start for id, (start, end) in read.extents().items()}
    needed = sum(sizes.get(entry.id, 0) for entry in transfer.needed(read))
    return f"{read.size / 1e6:.0f} MB, {needed / read.size:.0%} of them in tables that extract needs"


def compared(folder: Path) -> dict[str, int]:
    """Label -> the number of images that both ways found for it; they must be the same."""
    table = pq.read_table(folder / "ours.parquet", columns=["image_id", "label"])
    counts = {}
    for label in LABELS:
        ours = table["image_id"].filter(pc.equal(table["label"], label)).to_numpy()
        theirs = np.loadtxt(folder / f"{label}.csv", np.int64, delimiter="|", usecols=0, ndmin=1)
        if not np.array_equal(np.sort(theirs), ours):
            sys.exit(f"the two ways differ: {len(theirs)} and {len(ours)} images for {label}")
        counts[label] = len(ours)
    return counts


def cells(documented: Run, ours: Run) -> Iterator[str]:
    """A row of the table."""
    for run in (documented, ours):
        yield from (f"{took:.1f}" for took in (run.seconds["restore"], run.seconds["extract"], run.total()))
    yield f"{documented.total() / ours.total():.1f}"
    yield from (f"{run.gigabytes:.1f}" for run in (documented, ours))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, help="one that board.py wrote; made first if not given")
    parser.add_argument("--pairs", type=int, default=3, help="0: ours alone")
    parser.add_argument("--no-warm-up", dest="warm_up", action="store_false", help="measure the first runs, too")
    parser.add_argument("--goal", type=float, default=5, help="times faster")
    board.add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlpy-restoring-") as name:
        source = options.dump.absolute() if options.dump else Path(name) / "board.pgdump"
        if not options.dump:
            os.environ["MLPY_CACHE"] = f"{name}/cache"
            board.write(source, board.asked(options), options.programs)
        return 0 if compare(Path(name), source, options) else 1


if __name__ == "__main__":
    errors.run(main)
