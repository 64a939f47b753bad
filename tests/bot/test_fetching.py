"""Fetching a picture from a real host that fails in every way: what becomes of it, and who is asked how often."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from faulty_cdn import BODIES, PNG, SIGNED, FaultyCdn, faulty_cdn
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from bot.pictures.fetching import DISCORD, FetchCaps, Fetcher, NotAPictureError, UnfetchedError
from bot.pictures.references import Reference
from bot.rules.policy import UNJUDGED
from stages.inference.decoding import FORMATS
from stages.inference.hosts import Resolver

CAPS = FetchCaps(max_bytes=100_000, seconds=120.0, tries=3, pause=0.01)
HASTY = FetchCaps(max_bytes=100_000, seconds=0.4, tries=3, pause=0.01)


@pytest.fixture
async def cdn() -> AsyncIterator[FaultyCdn]:
    async with faulty_cdn() as cdn:
        yield cdn


@pytest.fixture
async def fetcher(cdn: FaultyCdn) -> AsyncIterator[Fetcher]:
    async with Fetcher([cdn.origin], CAPS) as fetcher:
        yield fetcher


@pytest.fixture
async def hasty(cdn: FaultyCdn) -> AsyncIterator[Fetcher]:
    async with Fetcher([cdn.origin], HASTY) as fetcher:
        yield fetcher


def at(url: str, still: str = "") -> Reference:
    return Reference("attachment:1", "attachment", url, still)


async def refused(fetcher: Fetcher, url: str) -> str:
    """The verdict; its signed query shows nowhere in the error."""
    with pytest.raises(UnfetchedError) as caught:
        await fetcher.fetch_picture(at(url))
    assert caught.value.detail
    assert caught.value.verdict in UNJUDGED
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(part in text for part in (SIGNED, *SIGNED.split("&")))
    return caught.value.verdict


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
async def test_a_picture_is_fetched_regardless_of_its_content_type(cdn: FaultyCdn, fetcher: Fetcher, kind: str) -> None:
    assert await fetcher.fetch_picture(at(cdn.url(kind))) == BODIES[kind]
    assert cdn.asked[kind] == 1


@pytest.mark.parametrize(
    ("path", "verdict", "asked"),
    [
        ("404", "unreachable", 1),
        ("403", "unreachable", 1),
        ("410", "unreachable", 1),
        ("204", "unreachable", 1),
        ("206", "unreachable", 1),
        ("500", "unreachable", 3),
        ("503", "unreachable", 3),
        ("429", "unreachable", 3),
        ("500,500,500,png", "unreachable", 3),
        ("nonsense", "unreachable", 3),
        ("cut-0", "unreachable", 3),
        ("cut-50", "unreachable", 3),
        ("chunks-50", "unreachable", 3),
        ("gzip", "corrupt", 1),
        ("gzip-50000000", "corrupt", 1),
        ("here-301", "outside", 1),
        ("here-302", "outside", 1),
        ("here-307", "outside", 1),
        ("mp4", "unsupported", 1),
        ("heic", "unsupported", 1),
        ("jxl", "unsupported", 1),
        ("sized-100001", "too_large", 1),
        ("large-1000000000000", "too_large", 1),
        ("endless-1", "too_large", 1),
    ],
)
async def test_a_failed_download_says_why(
    cdn: FaultyCdn, fetcher: Fetcher, caplog: pytest.LogCaptureFixture, path: str, verdict: str, asked: int
) -> None:
    assert await refused(fetcher, cdn.url(path)) == verdict
    assert cdn.asked == {path: asked}
    assert "hm=" not in caplog.text


@pytest.mark.parametrize(
    "path", ["503,png", "500,502,png", "429,png", "reset,png", "cut-60,png", "chunks-60,cut-9,png"]
)
async def test_a_temporary_failure_is_retried(cdn: FaultyCdn, fetcher: Fetcher, path: str) -> None:
    assert await fetcher.fetch_picture(at(cdn.url(path))) == PNG
    assert cdn.asked[path] == len(path.split(","))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a fetcher pauses for. No time passes in these pauses, but so much of the limit of `seconds`."""
    limits: list[tuple[asyncio.Timeout, float]] = []
    pauses: list[float] = []

    def timeout(seconds: float) -> asyncio.Timeout:
        limits.append((asyncio.timeout(1800), seconds))
        return limits[-1][0]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        limit, whole = limits[-1]
        if sum(pauses) >= whole:
            limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()

    monkeypatch.setattr("bot.pictures.fetching.asyncio", SimpleNamespace(timeout=timeout, sleep=sleep))
    return pauses


@pytest.mark.parametrize(("after", "pause"), [("0.3", 0.3), ("-7", 0.01), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.01)])
async def test_the_hosts_retry_after_is_respected(
    cdn: FaultyCdn, fetcher: Fetcher, pauses: list[float], after: str, pause: float
) -> None:
    assert (
        await fetcher.fetch_picture(at(f"{cdn.origin}/429-{after},png".replace(" ", "%20").replace(",%20", "%20")))
        == PNG
    )
    assert pauses == [pause]


async def test_a_pause_longer_than_there_is_time_ends_the_wait(
    cdn: FaultyCdn, hasty: Fetcher, pauses: list[float]
) -> None:
    assert await refused(hasty, cdn.url("429-3600,png")) == "timed_out"
    assert pauses == [10.0], "no longer than that, whatever the host asks for"
    assert cdn.asked.total() == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_never_followed(cdn: FaultyCdn, fetcher: Fetcher, status: int) -> None:
    async with faulty_cdn() as other:
        cdn.elsewhere = other.origin
        assert await refused(fetcher, cdn.url(f"away-{status}")) == "outside"
        assert other.asked.total() == 0


@pytest.mark.parametrize("path", ["stalled-0", "stalled-50", "pieces-1", "reset"])
async def test_all_tries_together_end_in_time(cdn: FaultyCdn, path: str) -> None:
    async with Fetcher([cdn.origin], FetchCaps(100_000, seconds=0.15, tries=1000, pause=0.04)) as fetcher:
        async with asyncio.timeout(1800):
            assert await refused(fetcher, cdn.url(path)) == "timed_out"


async def test_a_body_that_arrives_in_small_pieces_is_complete(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    assert await fetcher.fetch_picture(at(cdn.url("pieces-13"))) == PNG


async def test_a_body_longer_than_its_declared_length_is_not_read_to_the_end(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    with suppress(UnfetchedError):
        assert await fetcher.fetch_picture(at(cdn.url("more-5000"))) == PNG


async def test_a_file_of_exactly_the_maximum_size_is_fetched(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    assert len(await fetcher.fetch_picture(at(cdn.url("sized-100000")))) == 100_000


@pytest.mark.parametrize("path", ["html", "json", "zero", "tiny", "riff"])
async def test_files_that_are_not_pictures_are_ignored(cdn: FaultyCdn, fetcher: Fetcher, path: str) -> None:
    with pytest.raises(NotAPictureError):
        await fetcher.fetch_picture(at(cdn.url(path)))
    assert cdn.asked[path] == 1


async def test_an_endless_file_that_is_not_a_picture_is_abandoned_early(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    with pytest.raises(NotAPictureError):
        await fetcher.fetch_picture(at(cdn.url("endless-0")))
    await asyncio.sleep(0.1)
    assert cdn.sent < 20_000_000, "the line is cut"


UNDECODABLE = ["mp4", "heic", "jxl", *(kind for kind in ("avif", "bmp", "tiff") if kind.upper() not in FORMATS)]


@pytest.mark.parametrize("kind", UNDECODABLE)
async def test_a_still_stands_for_what_cannot_be_decoded(cdn: FaultyCdn, fetcher: Fetcher, kind: str) -> None:
    assert await fetcher.fetch_picture(at(cdn.url(kind), cdn.url("png"))) == PNG
    assert cdn.asked == {kind: 1, "png": 1}


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
async def test_no_still_is_asked_for_what_can_be_decoded(cdn: FaultyCdn, fetcher: Fetcher, kind: str) -> None:
    assert await fetcher.fetch_picture(at(cdn.url(kind), cdn.url("404"))) == BODIES[kind]
    assert cdn.asked == {kind: 1}


@pytest.mark.parametrize(("still", "verdict"), [("404", "unsupported"), ("mp4", "unsupported"), ("500", "unreachable")])
async def test_a_still_that_there_is_none_of(cdn: FaultyCdn, fetcher: Fetcher, still: str, verdict: str) -> None:
    with pytest.raises(UnfetchedError, match=verdict):
        await fetcher.fetch_picture(at(cdn.url("heic"), cdn.url(still)))


async def test_what_discord_displays_is_a_picture_whatever_its_bytes_are(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    reference = at(cdn.url("html"), cdn.url("png"))
    with pytest.raises(NotAPictureError):
        await fetcher.fetch_picture(reference)
    assert await fetcher.fetch_picture(replace(reference, displayed=True)) == PNG


async def test_any_file_can_be_fetched_for_a_repost(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    assert await fetcher.fetch_file(cdn.url("mp4"), 1000) == BODIES["mp4"]
    with pytest.raises(UnfetchedError, match="too_large"):
        await fetcher.fetch_file(cdn.url("mp4"), 100)
    with pytest.raises(UnfetchedError, match="outside"):
        await fetcher.fetch_file("https://evil.example/", 1000)


async def test_a_refused_connection_is_unreachable(cdn: FaultyCdn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with Fetcher([free], CAPS) as fetcher:
        assert await refused(fetcher, f"{free}/png?{SIGNED}") == "unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/png",
        "http://cdn.discordapp.com/png",
        "https://cdn.discordapp.com:444/png",
        "https://user@cdn.discordapp.com/png",
        "https://user:word@cdn.discordapp.com/png",
        "https://:word@cdn.discordapp.com/png",
        "https://@cdn.discordapp.com/png",
        "https://cdn.discordapp.com@evil.example/png",
        "https://cdn.discordapp.com\\@evil.example/png",
        "https://evil.example\\@cdn.discordapp.com/png",
        "https://cdn.discordapp.com.evil.example/png",
        "https://cdn.discordapp.com.:443/png",
        "https://evilcdn.discordapp.com/png",
        "https://discordapp.com/png",
        "https://cdn。discordapp.com/png",
        "https://cdn.discordapp.com /png",
        "https://[::1",
        "https://cdn.discordapp.com:99999999/png",
        "https://cdn.discordapp.com/a\r\nHost: evil.example",
        "https://cdn.discordapp.com/a\0b",
        "https://cdn.discordapp.com/a\x7fb",
        "ftp://cdn.discordapp.com/png",
        "file:///etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=",
        "//cdn.discordapp.com/png",
        "/png",
        "",
        "garbage",
        "https://",
    ],
)
async def test_only_discords_hosts_are_asked(url: str) -> None:
    async with Fetcher(DISCORD, HASTY) as fetcher:
        assert await refused(fetcher, url) == "outside"


@settings(max_examples=60)
@given(st.text(max_size=30))
def test_any_url_raises_only_the_documented_errors(text: str) -> None:
    async def ask() -> None:
        async with faulty_cdn() as cdn, Fetcher([cdn.origin], HASTY) as fetcher:
            cdn.asked.clear()
            for url in (text, f"{cdn.origin}{text}", f"{cdn.origin}/{text}", f"https://{text}@{cdn.origin[7:]}/"):
                with suppress(UnfetchedError, NotAPictureError):
                    await fetcher.fetch_picture(at(url))

    asyncio.run(ask())


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fd00::1",
     "fe80::1", "::ffff:127.0.0.1", "::"],
)  # fmt: skip
async def test_no_host_name_resolves_into_a_private_network(host: str) -> None:
    resolver = Resolver({}, loopback=False)
    with pytest.raises(OSError):  # noqa: PT011
        await resolver.resolve(host, 80, socket.AF_UNSPEC)
    assert [each["host"] for each in await resolver.resolve("1.1.1.1", 80)] == ["1.1.1.1"]
    await resolver.close()


async def test_an_allowed_name_of_a_private_address_is_not_asked(cdn: FaultyCdn) -> None:
    named = cdn.origin.replace("127.0.0.1", "localhost")
    async with Fetcher([named], CAPS) as fetcher:
        assert await refused(fetcher, f"{named}/png?{SIGNED}") == "unreachable"
    assert cdn.asked.total() == 0


async def test_requests_use_no_proxy_cookies_or_compression(
    cdn: FaultyCdn, monkeypatch: pytest.MonkeyPatch, fetcher: Fetcher
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    for _ in range(2):
        await fetcher.fetch_picture(at(cdn.url("png")))
    sent = cdn.headers[-1]
    assert sent["Accept-Encoding"] == "identity"
    assert sent["User-Agent"].startswith("DiscordBot (")
    assert not {"Cookie", "Authorization", "Referer"} & sent.keys()


async def test_many_at_once_and_a_cancelled_one_among_them(cdn: FaultyCdn, fetcher: Fetcher) -> None:
    slow = asyncio.create_task(fetcher.fetch_picture(at(cdn.url("stalled-50"))))
    await until(lambda: cdn.asked["stalled-50"])
    many = asyncio.gather(*(fetcher.fetch_picture(at(cdn.url("png"))) for _ in range(100)))
    slow.cancel()
    assert await many == [PNG] * 100
    with pytest.raises(asyncio.CancelledError):
        await slow
