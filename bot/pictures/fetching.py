"""Fetching a picture from Discord's own hosts, and from nowhere else, within caps of bytes and time."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from bot.pictures.references import Reference

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
HEAD = 32
"""Bytes that tell a picture from anything else."""


class UnfetchedError(Exception):
    """Why there is nothing to judge. `verdict` is one of `bot.rules.policy.UNJUDGED`."""

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(f"{verdict}: {detail}")
        self.verdict = verdict
        self.detail = detail


class NotAPictureError(Exception):
    """The file is no picture, whatever its name says: there is nothing to judge."""


@dataclass(frozen=True)
class FetchCaps:
    """What a picture may cost."""

    max_bytes: int = 25_000_000
    seconds: float = 15.0
    """For all tries of one picture."""
    tries: int = 3
    pause: float = 0.5
    """Before the second try, in seconds; doubled before each further one."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only, so that no name leads into the bot's own network."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp asks.

        Raises:
            OSError: if the name has no public address.
        """
        found = await self._inner.resolve(host, port, family)
        public = [each for each in found if ipaddress.ip_address(each["host"]).is_global]
        if not public:
            raise OSError(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Release the resolver."""
        await self._inner.close()


class Fetcher:
    """One client of Discord's CDN. Use it as an async context manager."""

    def __init__(self, origins: Collection[str] = DISCORD, caps: FetchCaps = FetchCaps()) -> None:
        """`origins`: scheme, host and port that may be asked; an address written as numbers is the operator's own."""
        self._origins = {URL(origin).origin() for origin in origins}
        self.caps = caps
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Fetcher:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=PublicResolver(), limit=32),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=10),
            headers={"User-Agent": "DiscordBot (MLpy, 1)", "Accept-Encoding": "identity"},
            auto_decompress=False,  # a small body must not become a large one
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def picture(self, reference: Reference) -> bytes:
        """The bytes of a picture.

        Raises:
            UnfetchedError: if it cannot be had, with the verdict for it.
            NotAPictureError: if it is none.
        """
        try:
            async with asyncio.timeout(self.caps.seconds):
                if reference.still:
                    return await self._get(reference.still, self.caps.max_bytes, sniff=True)
                return await self._get(reference.url, self.caps.max_bytes, sniff=True)
        except TimeoutError:
            raise UnfetchedError("timed_out", f"not fetched within {self.caps.seconds:g} s") from None

    async def file(self, url: str, max_bytes: int) -> bytes:
        """The bytes of any file of Discord's, as for posting it again.

        Raises:
            UnfetchedError: if it cannot be had.
        """
        try:
            async with asyncio.timeout(self.caps.seconds):
                return await self._get(url, max_bytes, sniff=False)
        except TimeoutError:
            raise UnfetchedError("timed_out", f"not fetched within {self.caps.seconds:g} s") from None

    def _allowed(self, text: str) -> URL:
        try:
            url = URL(text, encoded=True)
            if url.origin() in self._origins and "@" not in url.raw_authority and text.isprintable():
                return url
        except ValueError:
            pass
        raise UnfetchedError("outside", "not on a host of Discord's")

    async def _get(self, text: str, max_bytes: int, sniff: bool) -> bytes:
        url = self._allowed(text)
        pause = self.caps.pause
        for left in range(self.caps.tries - 1, -1, -1):
            wait = pause
            try:
                return await self._once(url, max_bytes, sniff)
            except _AgainError as error:
                detail, wait = error.detail, max(pause, min(error.after, 10.0))
            except (aiohttp.ClientError, OSError) as error:
                detail = type(error).__name__  # its text may hold the signed URL
            if left:
                await asyncio.sleep(wait)
                pause *= 2
        raise UnfetchedError("unreachable", f"{detail}, tried {self.caps.tries} times")

    async def _once(self, url: URL, max_bytes: int, sniff: bool) -> bytes:
        assert self._session is not None  # noqa: S101
        async with self._session.get(url, allow_redirects=False) as response:
            _check(response)
            body = bytearray()
            checked = not sniff
            async for chunk in response.content.iter_chunked(CHUNK):
                body += chunk
                if not checked and len(body) >= HEAD:
                    _sniff(bytes(body[:HEAD]))
                    checked = True
                if len(body) > max_bytes or (checked and (response.content_length or 0) > max_bytes):
                    raise UnfetchedError("too_large", f"over the cap of {max_bytes} bytes")
            if not checked:
                _sniff(bytes(body[:HEAD]))
            return bytes(body)


class _AgainError(Exception):
    def __init__(self, detail: str, after: float) -> None:
        super().__init__(detail)
        self.detail = detail
        self.after = after


def _check(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == 429 or status >= 500:
        raise _AgainError(f"HTTP {status}", _seconds(response.headers.get("Retry-After")))
    if 300 <= status < 400:
        raise UnfetchedError("outside", f"HTTP {status} leads elsewhere")
    if status != 200:
        raise UnfetchedError("unreachable", f"HTTP {status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UnfetchedError("corrupt", "packed on the way, though that was not asked for")


def _seconds(value: Any) -> float:
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        return 0.0


def _sniff(head: bytes) -> None:
    """Tell a picture by its first bytes.

    Raises:
        NotAPictureError: if it is none.
        UnfetchedError: if it is one of a format that is not decoded.
    """
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        return
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return
    if head[4:8] == b"ftyp" or head.startswith((b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL ", b"\xff\x0a")):
        raise UnfetchedError("unsupported", "a picture or video of a format that is not decoded")
    raise NotAPictureError
