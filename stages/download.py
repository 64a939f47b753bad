"""`images.parquet`, a picture host -> the pictures in shards, `status.parquet`, and `crawl.json`."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.config.download import Download
from stages.crawl import outputs, remote
from stages.crawl.copies import copies
from stages.crawl.crawler import Crawler, crawl
from stages.crawl.ending import ended_by_signals
from stages.crawl.outputs import UNKNOWN
from stages.crawl.pace import one_crawl
from stages.crawl.ranges import IdRanges, ShardFiller
from stages.crawl.store import PictureStore
from stages.workspace.cache import cache_root
from stages.workspace.errors import CrawlError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.paths import CRAWL, IMAGES, SHARDS, STATUS

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Download)
    ranges = IdRanges(IMAGES, params.shard_size)
    with (
        ended_by_signals(),
        opened_store(params) as store,
        one_crawl(params.hosts),
        temporary_folder(SHARDS.with_name(".outs")) as aside,
    ):
        started = time.monotonic()
        counts, crawler = download(params, store, ranges, aside)
        report(counts, crawler, params.hosts, time.monotonic() - started)
        publish(aside, counts, params.max_failed, len(crawler.gave_up) if crawler else 0)
        store.sweep()


def opened_store(params: Download) -> PictureStore:
    """The picture store in the cache, shared by all runs."""
    return PictureStore(cache_root() / "pictures", f"{params.max_bytes}/{params.max_pixels}")


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Create an empty folder that is deleted when the block ends."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def download(
    params: Download, store: PictureStore, ranges: IdRanges, folder: Path
) -> tuple[Counter[str], Crawler | None]:
    """Download what the store lacks and write the outputs to `folder`.

    Returns:
        The number of pictures with each status, and the crawler; None if nothing had to be downloaded.

    Raises:
        CrawlError: if the host refuses the crawl, the pictures' addresses are not those of `download.hosts`, or stored
            pictures are damaged while the crawl goes on.
    """
    counts = outputs.write(store, ranges, {}, folder)
    # Again: a wrong place in a damaged index is noticed only when the shard of its picture is written.
    while counts[UNKNOWN.status] and recovered(store):
        counts = outputs.write(store, ranges, {}, folder)
    if not (missing := counts[UNKNOWN.status]):
        return counts, None
    ranges.check_addresses(params.hosts)
    with opened_host(params) as resolve, ShardFiller(store, ranges) as filler:
        crawler = crawl(params, store, filler.missing(), missing, resolve, filler.settled)
    counts = outputs.write(store, ranges, crawler.gave_up, folder)
    if damaged := counts[UNKNOWN.status]:  # known before the crawl, and found to be damaged while it went on
        raise CrawlError(f"{damaged} pictures in {cache_root() / 'pictures'} are damaged; run again to download them")
    return counts, crawler


def recovered(store: PictureStore) -> int:
    """Look for pictures that the store lacks in its own files and in copies of shards; returns their number."""
    if count := store.adopt([*store.files(), *copies()]):
        log.info("recovered %d pictures from shards instead of downloading them", count)
    return count


def opened_host(params: Download) -> contextlib.AbstractContextManager[Mapping[str, tuple[str, int]]]:
    """Start the picture host if it is a local one; yields host name -> address and port to connect to instead."""
    # Imported only here: a board must not depend on another source's code.
    if params.host == "stages/sample":
        from stages.sample import server as sample

        return sample.opened(params)
    if params.host == "stages/folder":
        from stages.folder import server as folder

        return folder.opened(params)
    return remote.opened(params)


def report(counts: Counter[str], crawler: Crawler | None, hosts: list[str], seconds: float) -> None:
    """Write `crawl.json`, and log what the run took.

    Times, retries and pauses differ from run to run, so they are in no output, which git would show as changed after
    each run: they go to the log and, in full, to the cache root.
    """
    with replacing(CRAWL) as aside:
        aside.write_text(json.dumps({"pictures": dict(sorted(counts.items()))}, indent=2) + "\n")
    tally: dict[str, Any] = vars(crawler.tally) if crawler else {"requests": 0}
    statistics = cache_root() / f"crawl-{'-'.join(sorted(hosts))}.json"
    with replacing(statistics) as aside:
        aside.write_text(json.dumps({"seconds": round(seconds, 1), **tally}, indent=2) + "\n")
    log.info(
        "%d pictures: %s; %d requests in %.0f s%s",
        *(counts.total(), listed(counts) or "none", tally["requests"], seconds),
        f"; details are in {statistics}" if crawler else "",
    )


def publish(folder: Path, counts: Counter[str], max_failed: float, again: int) -> None:
    """Move the outputs into place; if too many pictures failed, only the status, which says why.

    `again`: failed pictures that the store does not remember, as the host was the reason; a rerun requests them again.

    Raises:
        CrawlError: if a larger share than `max_failed` failed. Downloaded pictures stay in the store.
    """
    (folder / STATUS.name).replace(STATUS)
    total, failed = counts.total(), counts.total() - counts["ok"]
    if failed > max_failed * total:
        reasons = Counter({status: count for status, count in counts.items() if status != "ok"})
        share = math.ceil(100 * failed / total) / 100
        raise CrawlError(
            f"{failed} of {total} pictures failed ({listed(reasons)}), more than download.max_failed={max_failed:g}; "
            f"running again requests {again} of them again and keeps what was downloaded, the other {failed - again} "
            f"are not requested for a week; see {STATUS} for the reasons, or accept them with "
            f"download.max_failed={share:g}"
        )
    shutil.rmtree(SHARDS, ignore_errors=True)
    (folder / SHARDS.name).rename(SHARDS)


def listed(counts: Counter[str]) -> str:
    """Counts in words, largest first: `120 ok, 3 missing`."""
    return ", ".join(f"{count} {status}" for status, count in counts.most_common() if count)


if __name__ == "__main__":
    run(main)
