"""Downloads pictures from a board's host: rate-limited, with retries, and without trusting its responses."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
from yarl import URL

from stages.config.download import Download
from stages.crawl import ending, pauses
from stages.crawl.checking import check_picture, decoding_limits
from stages.crawl.identity import user_agent
from stages.crawl.pace import Pace, backoff, retry_after
from stages.crawl.pauses import HostPause
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.inference.decoding import Caps
from stages.inference.hosts import Resolver, objection
from stages.inference.processes import Processes
from stages.philomena import signals
from stages.workspace.errors import CrawlError
from stages.workspace.progress import Progress

log = logging.getLogger(__name__)

CHUNK = 65_536
MAX_REDIRECTS = 5
CORRUPT_TRIES = 2
"""Attempts for bytes that are not a picture: a proxy's error page may be temporary, a broken file is not."""
PAGE = "a web page instead of a picture"
BREAKER = 50
"""Failures in a row after which the host is taken to be out of order."""


class TemporaryError(Exception):
    """A failure that another attempt may not have.

    `wait` is the wait in seconds that the host requested, if any; `asks_to_wait`: the host works, but wants a pause.
    """

    def __init__(
        self,
        message: str,
        http_status: int | None = None,
        wait: float | None = None,
        *,
        asks_to_wait: bool = False,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.wait = wait
        self.asks_to_wait = asks_to_wait


@dataclass
class Tally:
    """Statistics of a crawl."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    waited: float = 0.0
    """Seconds of waiting after failures, summed over all pictures."""
    paused: float = 0.0
    """Seconds for which the whole crawl was paused."""
    answers: Counter[str] = field(default_factory=Counter)
    """HTTP status, or the error in its place -> number of responses."""


class Crawler:
    """One crawl of one board's host; see `crawl`."""

    def __init__(self, params: Download, store: PictureStore, resolve: Mapping[str, tuple[str, int]]) -> None:
        self.params = params
        self.store = store
        self.tally = Tally()
        self.gave_up: dict[tuple[str, str], DownloadResult] = {}
        self._resolve = resolve
        self._pace = Pace(params.rate)
        self._host_failures: Counter[str] = Counter()
        """Reasons of the failures since the host last served a picture, or said that it has none."""
        self._throttled = 0
        """429 answers without Retry-After since the last picture: each doubles the pause of the whole crawl."""
        self._random = random.Random()  # noqa: S311 (spreads waits; no secret depends on it)
        self._caps = Caps(params.max_bytes, params.max_pixels)
        self._decoders = Processes(decoding_limits(params), 2)

    async def run(
        self, pictures: Iterable[WantedPicture], total: int, settled: Callable[[WantedPicture], None]
    ) -> None:
        """Download every picture: its result goes to the store or to `gave_up`, and then `settled` is called.

        Raises:
            CrawlError: if the host refuses the crawl with a 403.
        """
        timeout = aiohttp.ClientTimeout(total=self.params.timeout)
        connector = aiohttp.TCPConnector(
            limit=self.params.concurrency, resolver=Resolver(self._resolve), use_dns_cache=False
        )
        # No decompression: a decompression bomb in a Content-Encoding stays as small as it was sent.
        headers = {"User-Agent": user_agent(self.params.contact), "Accept-Encoding": "identity", "Accept": "image/*"}
        remaining, rate = iter(pictures), self.params.rate
        log.info("downloading %d pictures: at least %s at %g per second", total, _clock(total / rate), rate)
        with Progress("download", total, delay=lambda: self._pace.pause_left) as progress:
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=headers, auto_decompress=False, raise_for_status=False
            ) as session:
                # aiohttp repeats a request at once if a reused connection broke, which would bypass the pace.
                session._retry_connection = False

                async def work() -> None:
                    for picture in remaining:  # one iterator for all workers: each takes the next picture
                        status = await self._settle(session, picture)
                        settled(picture)
                        progress.update(failure=None if status == "ok" else status)

                self._resume_pause()
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(self.params.concurrency):
                            group.create_task(work())
                except* Exception as errors:  # of one task; the others were cancelled
                    raise errors.exceptions[0] from None
                finally:
                    self.tally.paused = round(self._pace.paused, 3)
                    self._decoders.close()

    async def _settle(self, session: aiohttp.ClientSession, picture: WantedPicture) -> str:
        """Try until the picture's result is known, or the attempts are used up; returns its status."""
        failure = TemporaryError("not attempted")
        corrupt, of_the_host = 0, True
        for attempt in range(self.params.tries):
            if attempt:
                self.tally.retries += 1
                await self._wait(attempt - 1, failure)
            try:
                result, data = await self._fetch(session, URL(picture.url, encoded=True))
            except TemporaryError as error:
                failure = error
                if not error.asks_to_wait:
                    self._count_host_failure(str(error))
                continue
            of_the_host = result.status == "refused" or result.detail == PAGE
            if of_the_host:
                self._count_host_failure(result.detail or "refused")
            else:
                self._host_failures.clear()
            if result.status == "corrupt" and (corrupt := corrupt + 1) < CORRUPT_TRIES:
                failure = TemporaryError("not a picture")
                continue
            if of_the_host:  # not stored either: an outage is no property of the picture
                self.gave_up[picture.url, picture.sha512] = result
            else:
                self.store.put(picture, result, data)
            return result.status
        if corrupt and not of_the_host:
            self.store.put(picture, result)
        else:  # not stored, so that the next run tries again
            result = DownloadResult("gave_up", failure.http_status, str(failure))
            self.gave_up[picture.url, picture.sha512] = result
        return result.status

    def _count_host_failure(self, reason: str) -> None:
        """Note a failure that is the host's, and not the picture's.

        Raises:
            CrawlError: after `BREAKER` of them in a row. A dead host would cost all attempts of all pictures: hours.
        """
        self._host_failures[reason] += 1
        if (total := self._host_failures.total()) >= BREAKER:
            reasons = ", ".join(f"{count} times {name}" for name, count in self._host_failures.most_common(3))
            raise CrawlError(
                f"{' and '.join(self.params.hosts)} serves no pictures: {total} requests in a row failed ({reasons}); "
                "run again when it works, these pictures are then requested again; if it works elsewhere, check "
                "download.hosts and extract.root"
            )

    async def _wait(self, attempt: int, failure: TemporaryError) -> None:
        """Back off after a failure, at least as long as the host requested."""
        seconds = backoff(attempt, self.params.backoff, self.params.max_wait, self._random)
        seconds = max(seconds, failure.wait or 0.0)
        self.tally.waited += seconds
        await asyncio.sleep(seconds)

    async def _fetch(self, session: aiohttp.ClientSession, url: URL) -> tuple[DownloadResult, bytes]:
        """Try once to download a picture, following redirects; returns the result and the bytes.

        Raises:
            TemporaryError: if another attempt may succeed.
            CrawlError: if the host refuses the crawl with a 403.
        """
        for _ in range(MAX_REDIRECTS + 1):
            if reason := objection(url, self.params.hosts):  # checked at every redirect
                return DownloadResult("refused", None, reason), b""
            await self._pace.turn()
            self.tally.requests += 1
            try:
                async with session.get(url, allow_redirects=False) as response:
                    self.tally.answers[str(response.status)] += 1
                    if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                        url = url.join(URL(response.headers["Location"]))
                        continue
                    return await self._read(response)
            except TimeoutError:
                message = "timed out"
            except aiohttp.ClientConnectorError as error:
                # Not the operating system's own message, which differs between machines.
                is_dns = isinstance(error, aiohttp.ClientConnectorDNSError)
                message = "host name not found" if is_dns else "connection failed"
            except (aiohttp.ClientError, OSError):
                message = "connection lost"
            except ValueError:
                return DownloadResult("refused", None, "redirect to an invalid URL"), b""
            self.tally.answers[message] += 1
            raise TemporaryError(message)
        return DownloadResult("refused", None, "too many redirects"), b""

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[DownloadResult, bytes]:
        """Turn a response that is not a redirect into a result and bytes; raises as `_fetch` does."""
        status = response.status
        if status in (404, 410):
            return DownloadResult("missing", status), b""
        if status == 403:
            raise CrawlError(
                f"{response.url.host} blocked the crawl (403); stop for today, contact the board's staff, then set "
                "download.contact and lower download.rate; downloaded pictures are kept"
            )
        if status != 200:
            asks_to_wait = await self._pause_if_asked(response)
            if 400 <= status < 500 and status not in (408, 425, 429):
                return DownloadResult("refused", status, "the host refused the request"), b""
            raise TemporaryError(
                f"the host answered {status}", status, retry_after(response.headers), asks_to_wait=asks_to_wait
            )
        self._throttled = 0
        data = await self._body(response)
        if data is None:
            return DownloadResult("too_large", status, f"over {self.params.max_bytes} bytes"), b""
        self.tally.bytes += len(data)
        if not data:
            raise TemporaryError("empty response", status)
        result = await check_picture(self._decoders, data, self._caps)
        if result.status == "corrupt" and response.content_type == "text/html":
            result = result._replace(detail=PAGE)
        return result, data

    async def _pause_if_asked(self, response: aiohttp.ClientResponse) -> bool:
        """Pause the whole crawl if a failed response concerns all of it, and not the one picture; returns whether."""
        requested = retry_after(response.headers)
        empty = response.status == 500 and not await response.content.read(1)
        signal_name = signals.signal(response.status, empty)
        if signal_name == "overloaded":
            self._pause(response, max(self.params.pause_overloaded, requested or 0))
        elif signal_name == "blocked":
            self._pause(response, self.params.pause_blocked)
        elif response.status in (429, 503) and requested is not None:
            self._pause(response, requested)
        elif response.status == 429:
            if not self._pace.is_paused:  # answers from before a pause lengthen nothing
                self._pause(response, min(self.params.max_wait, self.params.backoff * 2.0 ** min(self._throttled, 60)))
                self._throttled += 1
        else:
            return False
        return True

    def _pause(self, response: aiohttp.ClientResponse, seconds: float) -> None:
        """Pause the whole crawl, and those that follow if this one is ended."""
        pause = HostPause(seconds, response.url.host or "", f"it answered {response.status}")
        again = self._pace.is_paused
        self._pace.pause(seconds)
        pauses.keep(pause)
        if seconds > 10 and not again:  # one pause, one line
            log.info("%s requests a pause (%s): the crawl resumes in %s", pause.host, pause.reason, _clock(seconds))

    def _resume_pause(self) -> None:
        """Wait for the end of a pause that a host requested from an earlier crawl."""
        if pause := pauses.longest(self.params.hosts):
            log.info(
                "%s requested a pause from an earlier run (%s): the crawl begins in %s",
                *(pause.host, pause.reason, _clock(pause.seconds)),
            )
            self._pace.pause(pause.seconds)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The response's body; None as soon as it exceeds `max_bytes`, whatever Content-Length says."""
        if (response.content_length or 0) > self.params.max_bytes:
            return None
        parts = bytearray()
        async for part in response.content.iter_chunked(CHUNK):
            parts += part
            if len(parts) > self.params.max_bytes:
                return None
        return bytes(parts)


def _clock(seconds: float) -> str:
    """As H:MM:SS."""
    return str(timedelta(seconds=math.ceil(seconds)))


def crawl(
    params: Download,
    store: PictureStore,
    pictures: Iterable[WantedPicture],
    total: int,
    resolve: Mapping[str, tuple[str, int]],
    settled: Callable[[WantedPicture], None] = lambda _: None,
) -> Crawler:
    """Download pictures into `store`. Finished ones are kept, whatever stops the crawl.

    Args:
        params: rate, retries, limits and allowed hosts.
        store: receives each result as soon as it is known.
        pictures: consumed one at a time, so that millions of them need no memory.
        total: the number of pictures, for the progress bar.
        resolve: host name -> address and port to connect to instead, for the sample board on loopback.
        settled: called for each picture whose result is known, or that the crawl gave up on.

    Returns:
        The crawler, for its `tally` and `gave_up`.

    Raises:
        CrawlError: if the host refuses the crawl.
    """
    crawler = Crawler(params, store, resolve)
    ending.run(crawler.run(pictures, total, settled))
    return crawler
