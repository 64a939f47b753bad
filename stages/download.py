"""data/extract/images.parquet -> data/download/shards, status.parquet, crawl.json."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.booru.crawler import Crawler, crawl
from stages.booru.ranges import Filling, Ranges
from stages.booru.store import Outcome, Store, Wanted
from stages.errors import CrawlError, run
from stages.params import Download, load
from stages.paths import CRAWL, IMAGES, SHARDS, STATUS, cache_root, replacing
from stages.vision import shards

log = logging.getLogger(__name__)

BATCH = 4096
STATUS_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("status", pa.string()), ("http_status", pa.int16()), ("detail", pa.string())]
)

Ended = tuple[Wanted, Outcome]


def main() -> None:
    params = load(Download)
    ranges = Ranges(IMAGES, params.shard_size)
    with Store(cache_root() / "pictures", f"{params.max_bytes}/{params.max_pixels}") as store, alone(params.hosts):
        started = time.monotonic()
        crawler = fetch_absent(params, store, ranges)
        with replacing_folder(SHARDS) as folder:
            counts = write_outs(store, ranges, crawler, folder)
            report(counts, crawler, time.monotonic() - started)
            check_share(counts, params.max_failed)
        store.sweep()


@contextlib.contextmanager
def alone(hosts: list[str]) -> Iterator[None]:
    """Let one process at a time crawl these hosts: two would double the rate that the board is promised."""
    with contextlib.ExitStack() as stack:
        for host in sorted(hosts):
            lock = stack.enter_context((cache_root() / f"crawl-{host}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another run is crawling %s; waiting until it is through", host)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch_absent(params: Download, store: Store, ranges: Ranges) -> Crawler | None:
    """Crawl what the store lacks; None where it lacks nothing."""
    absent = sum(outcome is None for pictures in ranges for outcome in store.find(pictures))
    if not absent:
        return None
    with served(params) as resolve, Filling(store, ranges) as filling:
        return crawl(params, store, filling.lacking(), absent, resolve, filling.settled)


@contextlib.contextmanager
def served(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the sample board, if it is the source, under the name of its host."""
    if params.board == "remote":
        yield {}
    else:
        from stages.booru import board

        with board.serve(params.faults) as address:
            yield dict.fromkeys(params.hosts, address)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder; it takes `target`'s place only when the block ends without an error."""
    aside = target.with_name(f".{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_outs(store: Store, ranges: Ranges, crawler: Crawler | None, folder: Path) -> Counter[str]:
    """A status for every image, and the shards of the `ok` pictures into `folder`; counts pictures by status."""
    gave_up = crawler.gave_up if crawler else {}
    counts: Counter[str] = Counter()
    waiting: list[Ended] = []
    with replacing(STATUS) as aside, pq.ParquetWriter(aside, STATUS_SCHEMA, compression="zstd") as status:
        for pictures in tqdm(ranges, desc="shards", unit="shard", delay=2, disable=None):
            found = zip(pictures, store.find(pictures), strict=True)
            ended = [(each, outcome or gave_up[each.url, each.sha512]) for each, outcome in found]
            if good := [row for row in ended if row[1].status == "ok"]:
                link(store.shard(good), folder / shards.name(ranges.number(pictures[0])))
            counts.update(outcome.status for _, outcome in ended)
            waiting += ended
            while len(waiting) >= BATCH:
                write_status(status, waiting[:BATCH])
                del waiting[:BATCH]
        write_status(status, waiting)
    return counts


def link(shard: Path, target: Path) -> None:
    """Put a finished shard into place. It costs nothing where the cache root is on the same file system."""
    try:
        os.link(shard, target)
    except OSError:
        shutil.copyfile(shard, target)


def write_status(writer: pq.ParquetWriter, ended: list[Ended]) -> None:
    columns = [
        [each.image_id for each, _ in ended],
        *([getattr(outcome, name) for _, outcome in ended] for name in STATUS_SCHEMA.names[1:]),
    ]
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, STATUS_SCHEMA, strict=True)]
    if ended:
        writer.write_batch(pa.record_batch(arrays, schema=STATUS_SCHEMA))


def report(counts: Counter[str], crawler: Crawler | None, seconds: float) -> None:
    """Write `crawl.json`: what may differ from run to run."""
    tally: dict[str, Any] = vars(crawler.tally) if crawler else {"requests": 0}
    with replacing(CRAWL) as aside:
        said = {"pictures": dict(sorted(counts.items())), "seconds": round(seconds, 1), **tally}
        aside.write_text(json.dumps(said, indent=2) + "\n")


def check_share(counts: Counter[str], most: float) -> None:
    """Fail when more failed than allowed; what was fetched is kept for the next run."""
    total, failed = counts.total(), counts.total() - counts["ok"]
    if failed > most * total:
        reasons = ", ".join(f"{count} {status}" for status, count in counts.most_common() if status != "ok")
        raise CrawlError(
            f"{failed} of {total} pictures failed ({reasons}), over download.max_failed={most:g}; see {STATUS} and run "
            "again: only those are asked for"
        )


if __name__ == "__main__":
    run(main)
