"""What the tests' Discord server does on the wire when things go wrong."""

from __future__ import annotations

import aiohttp
import pytest
from discord_server import DiscordServer


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
        ({"reset": True, "times": 2}, aiohttp.ClientError),  # the client itself asks twice
        ({"delay": 0.1}, (200, b"x" * 5000)),
        ({"status": 503, "body": "busy"}, (503, b"busy")),
    ],
)
async def test_a_cdn_in_trouble(server, fault, seen):
    link = server.store(server.channel, b"x" * 5000)["url"]
    server.fail("GET", "/attachments/*", **fault)
    if isinstance(seen, tuple):
        assert await fetch(link) == seen
    else:
        with pytest.raises(seen):
            await fetch(link)
    assert await fetch(link) == (200, b"x" * 5000)


async def test_links_are_signed_and_expire(server):
    link = server.store(server.channel, b"x")["url"]
    path = link.partition("?")[0].removeprefix(server.cdn)
    assert await fetch(link) == (200, b"x")
    assert [(await fetch(server.cdn + end))[0] for end in (path, server.signed(path, seconds=-1))] == [404, 404]


@pytest.mark.parametrize(("sent", "code"), [("{", 4002), ('{"op": 8}', 4003), ('{"op": 2, "d": {}}', 4004), ("", 4009)])
async def test_the_gateway_closes_invalid_connections(sent, code):
    async with (
        DiscordServer(heartbeat=60 if sent else 0.1) as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(server.gateway) as ws,
    ):
        assert (await ws.receive_json())["op"] == 10
        if sent:
            await ws.send_str(sent)
        assert (await ws.receive()).data == code
    assert server.silent == (not sent)
