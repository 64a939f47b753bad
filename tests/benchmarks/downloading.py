"""Compare the download stage with img2dataset, or measure it on large boards.

Run `python tests/benchmarks/downloading.py peer` or `... grown`.

peer: both download the same JPEGs from an aiohttp server on loopback, one after the other, each in one process, timed
from the start of the process: `python -m stages.download` with an empty cache and without a rate limit, and
`img2dataset` with as many threads as ours has connections. Both decode every picture completely and store its bytes
unchanged, its SHA-256 and its size, in Parquet files of 1,000. In each pair the other one starts. The exit code is 1 if
the median ratio of wall-clock times, ours to theirs, is above --goal.

grown: with N synthetic pictures in the store, the seconds and peak memory of the stage's first run, which writes the
shards; of a rerun without its outs, as DVC does it; of a rerun with 1,000 more images; and of a crawl of N pictures
that are not in the store, up to its first request, which the host refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from aiohttp import web
from PIL import Image, ImageFilter
from watching import Watched, watch

from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.workspace import errors, paths

ROOT = Path(__file__).parents[2]
DIFFERENT = 100
"""Number of JPEGs that the server has; it serves them under any number of names."""
CAPS = {"max_bytes": 25_000_000, "max_pixels": 50_000_000}
SECTION = """
  {host: stages/crawl/remote.py, hosts: [127.0.0.1], rate: 1.0e+9, concurrency: 32, tries: 3, timeout: 60.0,
   backoff: 0.1, max_wait: 1.0, pause_overloaded: 1.0, pause_blocked: 1.0, max_failed: 0.0, shard_size: 1000}
"""


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's answer


def watched(folder: Path, *words: str | Path, expected: int = 0) -> Watched:
    """Run a command in a folder, and exit if its exit code is not the expected one."""
    environment = {**os.environ, "MLPY_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    with (folder / "output.txt").open("w+") as output:
        run = watch(words, folder, environment, output)
        output.seek(0)
        if run.code != expected:
            sys.exit(f"{words} ended with {run.code}:\n{output.read()}")
    return run


STAGE = (sys.executable, "-m", "stages.download")


def prepare(folder: Path, rows: Sequence[WantedPicture], **changed: object) -> None:
    """Write the stage's catalogue and parameters to a folder."""
    section = yaml.safe_load(SECTION) | {**CAPS, **changed}
    (folder / paths.IMAGES).parent.mkdir(parents=True, exist_ok=True)
    (folder / paths.PARAMS).write_text(yaml.safe_dump({"download": section}))
    columns = dict(zip(WantedPicture._fields, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(
        pa.table(columns), folder / paths.IMAGES, row_group_size=65_536, compression="zstd"
    )  # as extract does


# The peer


def jpegs() -> list[bytes]:
    """Pictures of 800x600 px with grain like a photograph's, about 100 kB each; the same at every call."""
    pictures = []
    for seed in range(DIFFERENT):
        chance = random.Random(seed)
        small = Image.frombytes("RGB", (40, 30), chance.randbytes(3600)).resize((800, 600), Image.Resampling.BICUBIC)
        grain = Image.frombytes("RGB", (800, 600), chance.randbytes(3 * 800 * 600)).filter(ImageFilter.BoxBlur(1))
        file = io.BytesIO()
        Image.blend(small, grain, 0.22).save(file, "JPEG", quality=85)
        pictures.append(file.getvalue())
    return pictures


def serve(connection: Connection) -> None:
    """Run the picture host: it serves `/N.jpg` for any N, and answers 403 to anything else."""
    pictures = jpegs()

    async def answer(request: web.Request) -> web.Response:
        number = request.path.strip("/").removesuffix(".jpg")
        if not number.isdecimal():
            return web.Response(status=403)
        return web.Response(body=pictures[int(number) % DIFFERENT], content_type="image/jpeg")

    async def begin(app: web.Application) -> None:
        connection.send((app["site"].getsockname()[1], [len(picture) for picture in pictures]))

    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    site = socket.create_server(("127.0.0.1", 0), backlog=1024)
    app["site"] = site
    app.on_startup.append(begin)
    web.run_app(app, sock=site, print=None, access_log=None, handle_signals=True)


@contextlib.contextmanager
def host() -> Iterator[tuple[int, list[int]]]:
    """Run the picture host in a subprocess; yields its port and its pictures' sizes in bytes."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def stored(files: Sequence[Path], column: str) -> tuple[int, int]:
    """Number of pictures in the files, and of their bytes."""
    sizes = [len(data) for file in files for data in pq.read_table(file, columns=[column])[column].to_pylist()]
    return len(sizes), sum(sizes)


def ours(folder: Path, rows: Sequence[WantedPicture], options: argparse.Namespace) -> Watched:
    prepare(folder, rows, concurrency=options.connections)
    run = watched(folder, *STAGE)
    assert stored([*(folder / paths.SHARDS).iterdir()], "bytes") == options.expected
    return run


def theirs(folder: Path, rows: Sequence[WantedPicture], options: argparse.Namespace) -> Watched:
    prepare(folder, rows)
    words = (
        *("--input_format=parquet", "--url_col=url", f"--url_list={paths.IMAGES}", "--output_folder=out"),
        *("--output_format=parquet", "--number_sample_per_shard=1000", "--compute_hash=sha256"),
        *("--processes_count=1", f"--thread_count={options.connections}", "--timeout=60", "--retries=3"),
        *("--resize_mode=no", "--skip_reencode=True", "--encode_format=jpg", "--extract_exif=False"),
    )
    run = watched(folder, options.peer, *words)
    assert stored(sorted((folder / "out").glob("*.parquet")), "jpg") == options.expected
    return run


def peer(options: argparse.Namespace) -> bool:
    """Measure and print the pairs; returns whether the goal is met."""
    with host() as (port, sizes), tempfile.TemporaryDirectory(prefix="mlpy-downloading-") as name:
        rows = [
            WantedPicture(number, f"http://127.0.0.1:{port}/{number}.jpg", "") for number in range(options.pictures)
        ]
        options.expected = (len(rows), sum(sizes[number % DIFFERENT] for number in range(len(rows))))
        say(f"{len(rows)} pictures, mean {statistics.mean(sizes) / 1000:.0f} kB; {options.connections} at a time.\n")
        say("| pair | ours s | theirs s | ratio | ours CPU s | theirs CPU s | ratio | ours MB | theirs MB |")
        say("|---|---|---|---|---|---|---|---|---|")
        ratios = []
        for pair in range(options.pairs + 1):
            runs = {}
            for way in (ours, theirs) if pair % 2 else (theirs, ours):
                folder = Path(name) / way.__name__
                folder.mkdir()
                runs[way.__name__] = way(folder, rows, options)
                shutil.rmtree(folder)
                os.sync()  # so that the next run does not pay for this one's writes
            if pair:  # the first pair is a warm-up
                cells = []
                for key in ("seconds", "cpu"):
                    mine, other = (getattr(runs[way], key) for way in ("ours", "theirs"))
                    cells += [f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.2f}"]
                cells += [f"{runs[way].megabytes:.0f}" for way in ("ours", "theirs")]
                say(f"| {pair} | {' | '.join(cells)} |")
                ratios.append(runs["ours"].seconds / runs["theirs"].seconds)
        say(f"\nMedian ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).")
        return statistics.median(ratios) <= options.goal


# The grown board


def synthetic(count: int) -> Iterator[WantedPicture]:
    """Synthetic pictures with addresses like a board's."""
    for number in range(count):
        date = f"{2012 + number // 250_000}/{1 + number // 20_000 % 12}/{1 + number // 700 % 28}"
        yield WantedPicture(
            number, f"http://127.0.0.1/img/{date}/{number}/medium.png", hashlib.sha512(b"%d" % number).hexdigest()
        )


def fill(folder: Path, count: int) -> None:
    """Fill a store with synthetic pictures, all of them `ok`."""
    with PictureStore(folder / "cache/pictures", "/".join(map(str, CAPS.values()))) as store:
        for picture in synthetic(count):
            data = b"picture %d" % picture.image_id
            store.put(picture, DownloadResult("ok", 200, None, 800, 600, "png", hashlib.sha256(data).hexdigest()), data)


def grown(options: argparse.Namespace) -> bool:
    say("| images | run | s | CPU s | peak MB | shards written |\n|---|---|---|---|---|---|")
    for count in options.sizes:
        with tempfile.TemporaryDirectory(prefix="mlpy-downloading-") as name:
            folder = Path(name)
            fill(folder, count + 1000)
            rows = list(synthetic(count + 1000))
            before = 0
            for what, some in (("first", rows[:-1000]), ("again", rows[:-1000]), ("1,000 more", rows)):
                prepare(folder, some)
                shutil.rmtree(folder / "data/download", ignore_errors=True)
                run = watched(folder, *STAGE)
                shards = len([*(folder / "cache/pictures").glob("*.parquet")])
                print_row(count, what, run, shards - before)
                before = shards
            with host() as (port, _):
                prepare(folder, [row._replace(url=row.url.replace("1/", f"1:{port}/", 1)) for row in rows[:-1000]])
                print_row(count, "planning a crawl", watched(folder, *STAGE, expected=1), 0)
    return True


def print_row(count: int, what: str, run: Watched, shards: int) -> None:
    say(f"| {count:,} | {what} | {run.seconds:.1f} | {run.cpu:.1f} | {run.megabytes:.0f} | {shards} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["peer", "grown"])
    parser.add_argument(
        "--peer", type=Path, help="path of the command img2dataset, in a virtual environment of its own"
    )
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--goal", type=float, default=1.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    return 0 if {"peer": peer, "grown": grown}[options.part](options) else 1


if __name__ == "__main__":
    errors.run(main)
