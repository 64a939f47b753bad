"""data/extract/images.parquet -> data/download/shards, status.parquet, crawl.json."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.booru.crawler import Crawler, crawl
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


def main() -> None:
    params = load(Download)
    with Store(cache_root() / "pictures", f"{params.max_bytes}/{params.max_pixels}") as store:
        started = time.monotonic()
        crawler = fetch_absent(params, store)
        counts = write_status(store, crawler)
        report(counts, crawler, time.monotonic() - started)
        check_share(counts, params.max_failed)
        write_shards(store, crawler, params.shard_size)


def catalogue() -> Iterator[list[Wanted]]:
    """The catalogue's pictures in batches, by ascending id."""
    if not IMAGES.exists():
        raise CrawlError(f"no catalogue {IMAGES}; run `dvc repro extract`")
    for batch in pq.ParquetFile(IMAGES).iter_batches(BATCH, columns=["image_id", "url", "sha512"]):
        yield [Wanted(row["image_id"], row["url"], row["sha512"] or "") for row in batch.to_pylist()]


def fetch_absent(params: Download, store: Store) -> Crawler | None:
    """Crawl what the store lacks; None where it lacks nothing."""
    with alone(params.hosts):  # a run that had to wait finds what the other one fetched
        absent = sum(outcome is None for batch in catalogue() for outcome in store.find(batch))
        if not absent:
            return None
        lacking = (
            each for batch in catalogue() for each, found in zip(batch, store.find(batch), strict=True) if found is None
        )
        with served(params) as resolve:
            return crawl(params, store, lacking, absent, resolve)


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
def served(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the sample board, if it is the source, under the name of its host."""
    if params.board == "remote":
        yield {}
    else:
        from stages.booru import board

        with board.serve(params.faults) as address:
            yield dict.fromkeys(params.hosts, address)


def outcomes(store: Store, crawler: Crawler | None) -> Iterator[tuple[Wanted, Outcome]]:
    """Each picture's outcome, by ascending id."""
    gave_up = crawler.gave_up if crawler else {}
    for batch in catalogue():
        for each, found in zip(batch, store.find(batch), strict=True):
            yield each, found or gave_up[each.url, each.sha512]


def write_status(store: Store, crawler: Crawler | None) -> Counter[str]:
    """A row for every image; pictures by status."""
    counts: Counter[str] = Counter()
    with replacing(STATUS) as aside, pq.ParquetWriter(aside, STATUS_SCHEMA, compression="zstd") as writer:
        ended = outcomes(store, crawler)
        while rows := list(itertools.islice(ended, BATCH)):
            counts.update(outcome.status for _, outcome in rows)
            columns = [
                [each.image_id for each, _ in rows],
                *([getattr(outcome, name) for _, outcome in rows] for name in STATUS_SCHEMA.names[1:]),
            ]
            arrays = [pa.array(column, kind.type) for column, kind in zip(columns, STATUS_SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=STATUS_SCHEMA))
    return counts


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


def write_shards(store: Store, crawler: Crawler | None, size: int) -> None:
    """The `ok` pictures, a shard for each range of `size` ids; the old shards go only when all new ones are there."""
    aside = SHARDS.with_name(".shards")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    good = ((each, outcome) for each, outcome in outcomes(store, crawler) if outcome.status == "ok")
    for number, rows in itertools.groupby(good, lambda row: row[0].image_id // size):
        shards.write(aside / shards.name(number), (picture(store, each, outcome) for each, outcome in rows))
    shutil.rmtree(SHARDS, ignore_errors=True)
    aside.rename(SHARDS)


def picture(store: Store, wanted: Wanted, outcome: Outcome) -> dict[str, Any]:
    facts = {name: getattr(outcome, name) for name in ("sha256", "width", "height", "format")}
    return {"image_id": wanted.image_id, "bytes": store.read(wanted, outcome), **facts}


if __name__ == "__main__":
    run(main)
