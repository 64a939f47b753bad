"""What the tests' Discord server does on the wire when things go wrong."""

from __future__ import annotations

import io

import aiohttp
import pytest
from discord_server import DiscordServer
from PIL import Image


@pytest.fixture
async def server():
    async with DiscordServer() as server:
        yield server


async def fetch(url, **more):
    async with aiohttp.ClientSession() as session, session.get(url, **more) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"cut": 1000}, aiohttp.ClientError),
        ({"length": 9000}, aiohttp.ClientError),
        ({"reset": True, "times": 2}, aiohttp.ClientError),  # the client itself asks twice
        ({"slow": 10}, TimeoutError),
        ({"delay": 0.1}, (200, b"x" * 5000)),
        ({"length": 100}, (200, b"x" * 100)),
        ({"length": -1}, (200, b"x" * 5000)),
        ({"redirect": True}, (302, b"")),
        ({"status": 503, "body": "busy"}, (503, b"busy")),
    ],
)
async def test_a_cdn_in_trouble(server, fault, seen):
    link = server.store(server.channel, b"x" * 5000)["url"]
    server.fail("GET", "/attachments/*", **fault)
    seconds = 0.3 if seen is TimeoutError else 120
    how = {"timeout": aiohttp.ClientTimeout(total=seconds), "allow_redirects": False}
    if isinstance(seen, tuple):
        assert await fetch(link, **how) == seen
    else:
        with pytest.raises(seen):
            await fetch(link, **how)
    assert await fetch(link) == (200, b"x" * 5000)


async def test_links_are_signed_and_expire(server):
    link = server.store(server.channel, b"x")["url"]
    path = link.partition("?")[0].removeprefix(server.cdn)
    assert await fetch(link) == (200, b"x")
    assert [(await fetch(server.cdn + end))[0] for end in (path, server.signed(path, seconds=-1))] == [404, 404]


async def test_the_media_proxy_gives_stills(server):
    drawn = io.BytesIO()
    Image.new("RGB", (8, 6)).save(drawn, "BMP")
    for data, name, more in ((b"film", "a.mp4", {"still": drawn.getvalue()}), (drawn.getvalue(), "a.bmp", {})):
        entry = server.store(server.channel, data, name, **more)
        assert await fetch(entry["proxy_url"]) == await fetch(entry["url"]) == (200, data)
        status, still = await fetch(entry["proxy_url"] + "format=png")
        assert (status, Image.open(io.BytesIO(still)).format) == (200, "PNG")
    assert (await fetch(server.store(server.channel, b"film", "a.mp4")["proxy_url"] + "format=png"))[0] == 415
    assert not server.leaks


@pytest.mark.parametrize(("said", "code"), [("{", 4002), ('{"op": 8}', 4003), ('{"op": 2, "d": {}}', 4004), ("", 4009)])
async def test_the_gateway_shuts_the_door(said, code):
    async with (
        DiscordServer(heartbeat=60 if said else 0.1) as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(server.gateway) as ws,
    ):
        assert (await ws.receive_json())["op"] == 10
        if said:
            await ws.send_str(said)
        assert (await ws.receive()).data == code
    assert server.silent == (not said)
