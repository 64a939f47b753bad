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

from stages.config.download import Download
from stages.crawl import remote
from stages.crawl.crawler import Crawler, crawl
from stages.crawl.ranges import Filling, Ranges
from stages.crawl.store import Outcome, Store, Wanted
from stages.workspace import shards
from stages.workspace.cache import cache_root
from stages.workspace.errors import CrawlError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.paths import CRAWL, IMAGES, SHARDS, STATUS

log = logging.getLogger(__name__)

BATCH = 4096
STATUS_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("status", pa.string()), ("http_status", pa.int16()), ("detail", pa.string())]
)

UNKNOWN = Outcome("unknown")
"""Of a picture that must be asked for first."""

Ended = tuple[Wanted, Outcome]
GaveUp = Mapping[tuple[str, str], Outcome]
"""Outcomes by address and hash."""


def main() -> None:
    params = load(Download)
    ranges = Ranges(IMAGES, params.shard_size)
    with (
        Store(cache_root() / "pictures", f"{params.max_bytes}/{params.max_pixels}") as store,
        alone(params.hosts),
        empty_folder(SHARDS.with_name(".outs")) as aside,
    ):
        started = time.monotonic()
        crawler, counts = None, write_outs(store, ranges, {}, aside)
        if absent := counts[UNKNOWN.status]:
            crawler = fetch(params, store, ranges, absent)
            counts = write_outs(store, ranges, crawler.gave_up, aside)
        check_known(counts)
        report(counts, crawler, time.monotonic() - started)
        (aside / STATUS.name).replace(STATUS)
        check_share(counts, params.max_failed)
        shutil.rmtree(SHARDS, ignore_errors=True)
        (aside / SHARDS.name).rename(SHARDS)
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


@contextlib.contextmanager
def empty_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for as long as the block runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def host(params: Download) -> contextlib.AbstractContextManager[Mapping[str, tuple[str, int]]]:
    """Open the picture host: yields host -> address and port to connect to instead."""
    if params.host == "stages/sample":
        from stages.sample import server

        return server.opened(params)
    return remote.opened(params)


def fetch(params: Download, store: Store, ranges: Ranges, absent: int) -> Crawler:
    """Crawl what the store lacks, and finish shards meanwhile."""
    with host(params) as resolve, Filling(store, ranges) as filling:
        return crawl(params, store, filling.lacking(), absent, resolve, filling.settled)


def write_outs(store: Store, ranges: Ranges, gave_up: GaveUp, folder: Path) -> Counter[str]:
    """A status for every image, and the shards of the ranges that are known; counts pictures by status."""
    counts: Counter[str] = Counter()
    waiting: list[Ended] = []
    (folder / SHARDS.name).mkdir(exist_ok=True)
    with (
        pq.ParquetWriter(folder / STATUS.name, STATUS_SCHEMA, compression="zstd") as status,
        tqdm(desc="shards", total=ranges.pictures, unit="picture", delay=2, disable=None) as bar,
    ):
        for pictures in ranges:
            found = zip(pictures, store.find(pictures), strict=True)
            ended = [(each, outcome or gave_up.get(each[1:], UNKNOWN)) for each, outcome in found]
            met = Counter(outcome.status for _, outcome in ended)
            if met["ok"] and not met[UNKNOWN.status]:
                good = ended if met["ok"] == len(ended) else [row for row in ended if row[1].status == "ok"]
                link(store.shard(good), folder / SHARDS.name / shards.name(ranges.number(pictures[0])))
            counts += met
            waiting += ended
            while len(waiting) >= BATCH:
                write_status(status, waiting[:BATCH])
                del waiting[:BATCH]
            bar.update(len(pictures))
        write_status(status, waiting)
    return counts


def link(shard: Path, target: Path) -> None:
    """Put a finished shard into place. It costs nothing where the cache root is on the same file system."""
    target.unlink(missing_ok=True)  # never write through a link
    try:
        os.link(shard, target)
    except OSError:
        shutil.copyfile(shard, target)


def write_status(writer: pq.ParquetWriter, ended: list[Ended]) -> None:
    columns = [
        [each.image_id for each, _ in ended],
        *([outcome[place] for _, outcome in ended] for place in range(len(STATUS_SCHEMA) - 1)),
    ]
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, STATUS_SCHEMA, strict=True)]
    if ended:
        writer.write_batch(pa.record_batch(arrays, schema=STATUS_SCHEMA))


def check_known(counts: Counter[str]) -> None:
    """Fail when pictures are lost that were known before the crawl: it met damage, and went on."""
    if lost := counts[UNKNOWN.status]:
        raise CrawlError(f"{lost} pictures in {cache_root() / 'pictures'} are damaged; run again to fetch what is lost")


def report(counts: Counter[str], crawler: Crawler | None, seconds: float) -> None:
    """Write `crawl.json`: what may differ from run to run. And say it in a line."""
    tally: dict[str, Any] = vars(crawler.tally) if crawler else {"requests": 0}
    with replacing(CRAWL) as aside:
        said = {"pictures": dict(sorted(counts.items())), "seconds": round(seconds, 1), **tally}
        aside.write_text(json.dumps(said, indent=2) + "\n")
    log.info(
        "%d pictures: %s; %d requests in %.0f s",
        *(counts.total(), listed(counts) or "none", tally["requests"], seconds),
    )


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.most_common() if count)


def check_share(counts: Counter[str], most: float) -> None:
    """Fail when more failed than allowed; what was fetched is kept for the next run."""
    total, failed = counts.total(), counts.total() - counts["ok"]
    if failed > most * total:
        reasons = Counter({status: count for status, count in counts.items() if status != "ok"})
        raise CrawlError(
            f"{failed} of {total} pictures failed ({listed(reasons)}), over download.max_failed={most:g}; see {STATUS} "
            "and run again: only those are asked for"
        )


if __name__ == "__main__":
    run(main)
