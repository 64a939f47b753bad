"""Downloads from Discord's CDN and media proxy, and from no other host, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from bot.pictures import formats
from bot.pictures.references import Reference
from stages.inference import decoding
from stages.inference.hosts import Resolver

DISCORD = frozenset(
    {
        "https://cdn.discordapp.com",
        "https://media.discordapp.net",
        "https://images-ext-1.discordapp.net",
        "https://images-ext-2.discordapp.net",
    }
)
"""Origins of Discord's CDN and media proxy."""

CHUNK = 64 * 1024


class UnfetchedError(Exception):
    """A file could not be downloaded. `verdict` is a key of `bot.rules.policy.UNJUDGED`."""

    def __init__(self, verdict: str, detail: str, refused: bool = False) -> None:
        super().__init__(f"{verdict}: {detail}")
        self.verdict = verdict
        self.detail = detail
        self.refused = refused
        """Whether the host answered and said no, so that asking again would not help."""


class NotAPictureError(Exception):
    """The file is not a picture, whatever its name and type say."""


class _UndecodableError(Exception):
    """The file's bytes are not in a format that is decoded here. `name`: of the format; empty if unknown."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class FetchCaps:
    """Limits of one download."""

    max_bytes: int = 25_000_000
    seconds: float = 15.0
    """For all tries together."""
    tries: int = 3
    pause: float = 0.5
    """Before the second try, in seconds; doubled before each further one."""


class Fetcher:
    """A client of Discord's CDN. Use it as an async context manager."""

    def __init__(self, origins: Collection[str] = DISCORD, caps: FetchCaps = FetchCaps()) -> None:
        """`origins`: the only schemes, hosts and ports to request. Private addresses are allowed only if the operator
        names one by its number, never as what a host name resolves to.
        """
        self._origins = {URL(origin).origin() for origin in origins}
        self.caps = caps
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Fetcher:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver({}, loopback=False), limit=32),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=10),  # `FetchCaps.seconds` is the total
            headers={"User-Agent": "DiscordBot (MLpy, 1)", "Accept-Encoding": "identity"},
            auto_decompress=False,  # a small body could unpack to a huge one
            trust_env=False,  # through a proxy, the resolver would not be asked
            cookie_jar=aiohttp.DummyCookieJar(),  # requests must not be linked to each other
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch_picture(self, reference: Reference) -> bytes:
        """Download a picture, or, if its bytes cannot be decoded here, the still that Discord shows of it.

        Raises:
            UnfetchedError: if it cannot be downloaded, with a verdict.
            NotAPictureError: if the file is not a picture.
        """
        try:
            return await self._download(reference.url, self.caps.max_bytes, sniff=True)
        except _UndecodableError as error:
            if not error.name and not reference.displayed:
                raise NotAPictureError from None
            return await self.fetch_still(reference, error.name)

    async def fetch_still(self, reference: Reference, name: str) -> bytes:
        """Download the still that the media proxy makes of a picture or video in the format `name`.

        Raises:
            UnfetchedError: `unsupported` if there is none, or as for `fetch_picture`.
        """
        unsupported = UnfetchedError("unsupported", f"{name or 'unknown format'}, without a still in the media proxy")
        if not reference.still:
            raise unsupported
        try:
            return await self._download(reference.still, self.caps.max_bytes, sniff=True)
        except _UndecodableError:
            raise unsupported from None
        except UnfetchedError as error:
            raise (unsupported if error.refused else error) from None

    async def fetch_file(self, url: str, max_bytes: int) -> bytes:
        """Download any attachment, as for a repost.

        Raises:
            UnfetchedError: if it cannot be downloaded.
        """
        return await self._download(url, max_bytes, sniff=False)

    async def _download(self, address: str, max_bytes: int, sniff: bool) -> bytes:
        try:
            async with asyncio.timeout(self.caps.seconds):
                return await self._download_with_retries(self._parse_allowed(address), max_bytes, sniff)
        except TimeoutError:
            raise UnfetchedError("timed_out", f"not downloaded within {self.caps.seconds:g} s") from None

    def _parse_allowed(self, text: str) -> URL:
        """An address on an allowed origin; `UnfetchedError` for any other."""
        try:
            url = URL(text, encoded=True)  # as it is: quoting it again would break Discord's signature
            # `origin()` drops a user and password, and control characters could split the request line.
            if url.origin() in self._origins and "@" not in url.raw_authority and text.isprintable():
                return url
        except ValueError:
            pass  # not a URL
        raise UnfetchedError("outside", "the address is not one of Discord's")

    async def _download_with_retries(self, url: URL, max_bytes: int, sniff: bool) -> bytes:
        pause = self.caps.pause
        for left in range(self.caps.tries - 1, -1, -1):
            wait = pause
            try:
                return await self._download_once(url, max_bytes, sniff)
            except _RetryableError as error:
                detail, wait = error.detail, max(pause, min(error.retry_after, 10.0))
            except (aiohttp.ClientError, OSError) as error:
                detail = type(error).__name__  # not its text, which may contain the signed URL
            if left:
                await asyncio.sleep(wait)
                pause *= 2
        raise UnfetchedError("unreachable", f"{detail}, tried {self.caps.tries} times")

    async def _download_once(self, url: URL, max_bytes: int, sniff: bool) -> bytes:
        assert self._session is not None  # noqa: S101
        # A redirect could lead anywhere, so it is an error.
        async with self._session.get(url, allow_redirects=False) as response:
            _check_response(response)
            body = bytearray()
            sniffed = not sniff
            async for chunk in response.content.iter_chunked(CHUNK):
                body += chunk
                # As early as possible: most files that are not pictures are large, and are not downloaded further.
                if not sniffed and len(body) >= formats.HEAD_BYTES:
                    _check_format(body)
                    sniffed = True
                # After sniffing, so that a huge file that is not a picture gets no verdict.
                if len(body) > max_bytes or (sniffed and (response.content_length or 0) > max_bytes):
                    raise UnfetchedError("too_large", f"larger than {max_bytes:,} bytes")
            if not sniffed:
                _check_format(body)
            return bytes(body)


class _RetryableError(Exception):
    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


def _check_response(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == 429 or status >= 500:
        raise _RetryableError(f"HTTP {status}", _parse_seconds(response.headers.get("Retry-After")))
    if 300 <= status < 400:
        raise UnfetchedError("outside", f"HTTP {status} redirects to another address")
    if status != 200:
        raise UnfetchedError("unreachable", f"HTTP {status}", refused=True)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UnfetchedError("corrupt", "compressed in transit, which was not requested")


def _parse_seconds(value: Any) -> float:
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        return 0.0


def _check_format(body: bytearray) -> None:
    """Raise `_UndecodableError` unless the first bytes are those of a format in `decoding.FORMATS`."""
    name = formats.sniff(bytes(body[: formats.HEAD_BYTES]))
    if name not in decoding.FORMATS:
        raise _UndecodableError(name)
