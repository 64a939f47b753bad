"""Fetches pictures from a board's host: politely, patiently, and believing nothing that it says."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp
from tqdm import tqdm
from yarl import URL

from stages.config.download import Download
from stages.crawl.pace import Pace, backoff, retry_after
from stages.crawl.store import Outcome, Store, Wanted
from stages.inference.decoding import Caps, open_checked
from stages.inference.hosts import Resolver, objection
from stages.philomena import signals
from stages.workspace.errors import CrawlError, PictureError

log = logging.getLogger(__name__)

CHUNK = 65_536
REDIRECTS = 5
TOLD = 600.0
"""Seconds between two lines that tell how far the crawl is, where no bar can."""
CORRUPT_TRIES = 2
"""Bytes that are no picture are asked for once more: a proxy's error page passes, a broken file stays broken."""


class PassingError(Exception):
    """A failure that may pass: the message says what, `wait` how long the host asks to wait (s), if it does."""

    def __init__(self, said: str, http_status: int | None = None, wait: float | None = None) -> None:
        super().__init__(said)
        self.http_status = http_status
        self.wait = wait


@dataclass
class Tally:
    """What a crawl did, for `crawl.json`."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    waited: float = 0.0
    """Seconds that tries waited after a failure, in all."""
    paused: float = 0.0
    """Seconds that the whole crawl was paused."""
    answers: Counter[str] = field(default_factory=Counter)
    """HTTP status, or what happened instead -> how often."""


def user_agent(contact: str | None) -> str:
    """Who is asking, honestly."""
    try:
        release = version("mlpy")
    except PackageNotFoundError:  # run from the repository, as it is meant to be
        release = "dev"
    return f"MLpy/{release} (dataset crawler{f'; +{contact}' if contact else ''})"


class Crawler:
    """One polite crawl of one board's host; see `crawl`."""

    def __init__(self, params: Download, store: Store, resolve: Mapping[str, tuple[str, int]]) -> None:
        self.params = params
        self.store = store
        self.tally = Tally()
        self.gave_up: dict[tuple[str, str], Outcome] = {}
        self._resolve = resolve
        self._pace = Pace(params.rate)
        self._chance = random.Random()  # noqa: S311 (spreads waits, hides nothing)
        self._caps = Caps(params.max_bytes, params.max_pixels)
        self._decoders = ThreadPoolExecutor(2, "decoder")

    async def run(self, wanted: Iterable[Wanted], total: int, settled: Callable[[Wanted], None]) -> None:
        """Fetch every picture; each ends in the store, or in `gave_up`, and is told to `settled`.

        Raises:
            CrawlError: if the host's front proxy refuses the crawl (403).
        """
        timeout = aiohttp.ClientTimeout(total=self.params.timeout)
        connector = aiohttp.TCPConnector(
            limit=self.params.concurrency, resolver=Resolver(self._resolve), use_dns_cache=False
        )
        # Nothing is unpacked on the way: a bomb in a Content-Encoding stays the few bytes that it is.
        headers = {"User-Agent": user_agent(self.params.contact), "Accept-Encoding": "identity", "Accept": "image/*"}
        source = iter(wanted)
        log.info("asking for %d pictures: %s or more at %g a second", total, self._left(total), self.params.rate)
        told, done = time.monotonic(), 0
        with tqdm(total=total, unit="picture", desc="download", smoothing=0, disable=None) as bar:  # pauses come and go
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=headers, auto_decompress=False, raise_for_status=False
            ) as session:
                # aiohttp would ask once more at once where a connection broke: behind the pace's back.
                session._retry_connection = False

                async def work() -> None:
                    nonlocal told, done
                    for each in source:  # shared by all workers: each takes the next
                        await self._settle(session, each)
                        settled(each)
                        done += 1
                        if bar.disable and time.monotonic() - told > TOLD:
                            told = time.monotonic()
                            log.info("%d of %d pictures; %s or more are left", done, total, self._left(total - done))
                        bar.set_postfix(gave_up=len(self.gave_up), retries=self.tally.retries, refresh=False)
                        bar.update()

                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(self.params.concurrency):
                            group.create_task(work())
                except* CrawlError as errors:
                    raise errors.exceptions[0] from None
                finally:
                    self.tally.paused = round(self._pace.paused, 3)
                    self._decoders.shutdown(wait=False, cancel_futures=True)

    def _left(self, pictures: int) -> str:
        return str(timedelta(seconds=math.ceil(pictures / self.params.rate)))

    async def _settle(self, session: aiohttp.ClientSession, wanted: Wanted) -> None:
        """Try until the picture's outcome is known, or the tries are used up."""
        failure = PassingError("never tried")
        corrupt = 0
        for attempt in range(self.params.tries):
            if attempt:
                self.tally.retries += 1
                await self._wait(attempt - 1, failure)
            try:
                outcome, data = await self._fetch(session, URL(wanted.url, encoded=True))
            except PassingError as passing:
                failure = passing
                continue
            if outcome.status == "corrupt" and (corrupt := corrupt + 1) < CORRUPT_TRIES:
                failure = PassingError("no picture")
                continue
            self.store.put(wanted, outcome, data)
            return
        if corrupt:
            self.store.put(wanted, outcome)
        else:  # not kept: the next run asks again
            self.gave_up[wanted.url, wanted.sha512] = Outcome("gave_up", failure.http_status, str(failure))

    async def _wait(self, attempt: int, failure: PassingError) -> None:
        seconds = backoff(attempt, self.params.backoff, self.params.max_wait, self._chance)
        seconds = max(seconds, min(failure.wait or 0.0, self.params.max_wait))
        self.tally.waited += seconds
        await asyncio.sleep(seconds)

    async def _fetch(self, session: aiohttp.ClientSession, url: URL) -> tuple[Outcome, bytes]:
        """One try: the outcome and the bytes.

        Raises:
            PassingError: if another try may end otherwise.
            CrawlError: on a 403.
        """
        for _ in range(REDIRECTS + 1):
            if why := objection(url, self.params.hosts):
                return Outcome("refused", None, why), b""
            await self._pace.turn()
            self.tally.requests += 1
            try:
                async with session.get(url, allow_redirects=False) as answer:
                    self.tally.answers[str(answer.status)] += 1
                    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                        url = url.join(URL(answer.headers["Location"]))
                        continue
                    return await self._read(answer)
            except TimeoutError:
                said = "timed out"
            except aiohttp.ClientConnectorError as error:
                # Whether a name, a port or TLS failed; the system's own words differ between machines.
                said = (
                    "the name has no address" if isinstance(error, aiohttp.ClientConnectorDNSError) else "no connection"
                )
            except (aiohttp.ClientError, OSError):
                said = "the connection broke"
            except ValueError:
                return Outcome("refused", None, "a redirect to no address"), b""
            self.tally.answers[said] += 1
            raise PassingError(said)
        return Outcome("refused", None, "too many redirects"), b""

    async def _read(self, answer: aiohttp.ClientResponse) -> tuple[Outcome, bytes]:
        status = answer.status
        if status in (404, 410):
            return Outcome("missing", status), b""
        if status == 403:
            raise CrawlError(
                f"{answer.url.host} refuses the crawl (403): stop for today, ask the board's staff, and set "
                "download.contact and a lower download.rate; what was fetched is kept"
            )
        if status != 200:
            await self._heed(answer)
            if 400 <= status < 500 and status not in (408, 425, 429):
                return Outcome("refused", status, "the host refuses the request"), b""
            raise PassingError(f"the host answered {status}", status, retry_after(answer.headers))
        data = await self._body(answer)
        if data is None:
            return Outcome("too_large", status, f"over {self.params.max_bytes} bytes"), b""
        self.tally.bytes += len(data)
        if not data:
            raise PassingError("an empty answer", status)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, self._judge, data), data

    async def _heed(self, answer: aiohttp.ClientResponse) -> None:
        """Pause the whole crawl where the board's signal is meant for all of it."""
        asked = retry_after(answer.headers)
        empty = answer.status == 500 and not await answer.content.read(1)
        asks_for = signals.signal(answer.status, empty)
        if asks_for == "overloaded":
            self._pause(max(self.params.pause_overloaded, min(asked or 0, self.params.max_wait)))
        elif asks_for == "blocked":
            self._pause(self.params.pause_blocked)
        elif answer.status in (429, 503) and asked is not None:
            self._pause(min(asked, self.params.max_wait))
        elif answer.status == 429:
            self._pause(self.params.backoff)

    def _pause(self, seconds: float) -> None:
        if seconds > 10:
            log.info("the board asks for a pause: the crawl goes on in %.0f s", seconds)
        self._pace.pause(seconds)

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes | None:
        """The bytes as they come; None as soon as they are over the cap."""
        if (answer.content_length or 0) > self.params.max_bytes:
            return None
        parts = bytearray()
        async for part in answer.content.iter_chunked(CHUNK):
            parts += part
            if len(parts) > self.params.max_bytes:
                return None
        return bytes(parts)

    def _judge(self, data: bytes) -> Outcome:
        """Whether the bytes are a picture, by decoding all of it."""
        try:
            image = open_checked(data, self._caps)
            kind = (image.format or "").lower()
            width, height = image.size
            image.load()
        except PictureError as error:
            return Outcome(error.reason, 200, error.detail)
        except Exception as error:  # a hostile file can make a decoder raise nearly anything
            return Outcome("corrupt", 200, f"cannot be decoded ({type(error).__name__})")
        return Outcome("ok", 200, None, width, height, kind, hashlib.sha256(data).hexdigest())


def crawl(
    params: Download,
    store: Store,
    wanted: Iterable[Wanted],
    total: int,
    resolve: Mapping[str, tuple[str, int]],
    settled: Callable[[Wanted], None] = lambda _: None,
) -> Crawler:
    """Fetch `wanted`, `total` pictures, into `store`; what was finished is kept whatever stops it.

    Args:
        params: rate, patience, caps and allowed hosts.
        store: takes each outcome as it is known.
        wanted: taken one by one, so that millions need no memory.
        total: for the progress bar.
        resolve: host -> address and port to connect to in its stead, as for the sample board on loopback.
        settled: is told of each picture whose outcome is known, or that was given up.

    Raises:
        CrawlError: if the host refuses the crawl.
    """
    crawler = Crawler(params, store, resolve)
    try:
        asyncio.run(_terminable(crawler.run(wanted, total, settled)))
    except asyncio.CancelledError:
        sys.exit(143)
    return crawler


async def _terminable(crawl: Coroutine[Any, Any, None]) -> None:
    """Let SIGTERM cancel the crawl, as asyncio has SIGINT do: an exit from amid a task would leave a traceback."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(crawl)
    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        await task
    finally:
        signal.signal(signal.SIGTERM, before)
