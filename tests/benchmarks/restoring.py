"""Restore and extract against plain pg_restore and the same query: python tests/benchmarks/restoring.py [--pairs 3].

Plain: a server with PostgreSQL's own settings, made anew; `pg_restore -O -d`, as the boards' dump pages say, and the
statement that extract sends, into a Parquet file by extract's own code. Making and starting the server, and creating
its database, are told but not counted. Ours: `python -m stages.restore` and `python -m stages.extract` with an empty
cache, from the start of the process to its end: our server made and started, the dump hashed, lite.pgdump written.

Both work in one folder, in turns, and who goes first changes; both must give the same table. Exit code 1 if the median
ratio of ours to plain is above --goal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import board

from stages import composition, errors, extract, params, paths
from stages.booru import archive, databases, dump, postgres
from stages.booru.catalogue import Catalogue
from stages.booru.postgres import Server, binary

ROOT = Path(__file__).parents[2]
COLUMNS = ("pg_restore", "query", "plain s", "restore", "extract", "ours s", "ratio", "not counted: plain server made")
WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
"""Runs a command from a process so small that the command's peak of memory does not begin at ours."""


class Run:
    """One way's seconds, part by part, and the greatest memory of any of its Python processes, in MB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}

    def command(self, part: str, words: Sequence[str | Path], folder: Path, **environment: str) -> None:
        """Run a command to its end. Its peak counts what it waited for, pg_dump and pg_restore, but no server."""
        report = folder / f"{part}.peak"
        start = time.perf_counter()
        watched = [sys.executable, "-I", "-S", "-c", WATCH, report, *words]
        code = subprocess.run(watched, cwd=folder, env={**clean(), **environment}).returncode
        self.seconds[part] = time.perf_counter() - start
        if code:
            sys.exit(f"{part} failed with exit code {code}")
        self.megabytes[part] = int(report.read_text()) / (2**20 if sys.platform == "darwin" else 2**10)

    def total(self) -> float:
        return self.seconds["restore"] + self.seconds["extract"]

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


def plain(folder: Path, source: Path) -> Run:
    """The documented way."""
    run = Run()
    with contextlib.ExitStack() as stack:
        with run.timed("server"):
            server = stack.enter_context(server_as_it_comes(folder / "server"))
            with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE board")
        dsn = server.dsn("board")
        run.command("restore", [binary("pg_restore"), "-O", "-d", dsn, source], folder)
        run.command("extract", [sys.executable, Path(__file__).absolute(), "--query", dsn], folder)
    return run


def query(dsn: str) -> None:
    """Extract's statement, on a database that pg_restore alone made."""
    database = databases.Database(Server(databases.parse_dsn(dsn)), databases.parse_dsn(dsn)["dbname"])
    paths.IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with database.cursor() as cursor:
        catalogue = Catalogue(cursor, params.load(params.Extract))
        extract.write(catalogue, paths.IMAGES)
        paths.EXTRACT_SUMMARY.write_text(json.dumps(catalogue.summary(), indent=2) + "\n")


def ours(folder: Path, source: Path) -> Run:
    """Our two stages."""
    run = Run()
    for stage in ("restore", "extract"):
        run.command(stage, [sys.executable, "-m", f"stages.{stage}"], folder, MLPY_CACHE=str(folder / "cache"))
    return run


def measured(way: str, folder: Path, source: Path, text: str) -> Run:
    """Run a way in a new folder; its catalogue stays."""
    with tempfile.TemporaryDirectory(prefix=f"{way}-", dir=folder) as name:
        (Path(name) / paths.PARAMS).write_text(text)
        run = {"plain": plain, "ours": ours}[way](Path(name), source)
        (Path(name) / paths.IMAGES).replace(folder / f"{way}.parquet")
        (Path(name) / paths.EXTRACT_SUMMARY).replace(folder / f"{way}.json")
        os.sync()  # what this one left for the disk to do is not the next one's burden
    sys.stderr.write(f"{way}: {', '.join(f'{part} {took:.1f} s' for part, took in run.seconds.items())}\n")
    return run


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's answer


def compare(folder: Path, source: Path, options: argparse.Namespace) -> bool:
    """Measure, tell, and say whether the goal is met."""
    say(f"A dump of {described(source)}.\n")
    os.chdir(ROOT)
    text = composition.composed(["source=derpibooru", f"policy={options.policy}", f"restore.dump={source}"])
    for way in ("plain", "ours") if options.warm_up else ():
        measured(way, folder, source, text)
    say(f"| pair | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    pairs = []
    for number in range(1, options.pairs + 1):
        order = ("plain", "ours") if number % 2 else ("ours", "plain")
        pairs.append({way: measured(way, folder, source, text) for way in order})
        rows = compared(folder)
        say(f"| {number} | {' | '.join(cells(pairs[-1]['plain'], pairs[-1]['ours']))} |")
    ratios = [pair["ours"].total() / pair["plain"].total() for pair in pairs]
    say(f"\nMedian ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).")
    say(f"Catalogues: {rows:,} rows each, equal to the byte.")
    for part, way in (("restore", "ours"), ("extract", "ours"), ("extract", "plain")):
        say(f"Peak memory of {part}, {way}: {max(pair[way].megabytes[part] for pair in pairs):.0f} MB.")
    return statistics.median(ratios) <= options.goal


def described(source: Path) -> str:
    read = archive.read(source)
    sizes = {id: end - start for id, (start, end) in read.extents().items()}
    needed = sum(sizes.get(entry.id, 0) for entry in dump.needed(read))
    return f"{read.size / 1e6:.0f} MB, {needed / read.size:.0%} of them in tables that extract needs"


def compared(folder: Path) -> int:
    """The rows of both catalogues, which must be equal. Equal rows are equal bytes: nothing is read into memory."""
    for kind in ("parquet", "json"):
        if dump.sha256(folder / f"plain.{kind}") != dump.sha256(folder / f"ours.{kind}"):
            sys.exit("the catalogues differ")
    return int(json.loads((folder / "ours.json").read_text())["kept"])


def cells(plain: Run, ours: Run) -> Iterator[str]:
    """A row of the table."""
    for run in (plain, ours):
        yield from (f"{took:.1f}" for took in (run.seconds["restore"], run.seconds["extract"], run.total()))
    yield f"{ours.total() / plain.total():.2f}"
    yield f"{plain.seconds['server']:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, help="one that board.py wrote; made first if not given")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--no-warm-up", dest="warm_up", action="store_false", help="measure the first runs, too")
    parser.add_argument("--policy", default="mlpy2020", help="one whose tags the board has: mlpy2020 or ratings")
    parser.add_argument("--goal", type=float, default=0.5)
    parser.add_argument("--query", metavar="DSN", help=argparse.SUPPRESS)
    board.add_options(parser)
    options = parser.parse_args()
    if options.query:
        query(options.query)
        return 0
    with tempfile.TemporaryDirectory(prefix="mlpy-restoring-") as name:
        source = options.dump.absolute() if options.dump else Path(name) / "board.pgdump"
        if not options.dump:
            os.environ["MLPY_CACHE"] = f"{name}/cache"
            board.write(source, board.asked(options))
        return 0 if compare(Path(name), source, options) else 1


if __name__ == "__main__":
    errors.run(main)
