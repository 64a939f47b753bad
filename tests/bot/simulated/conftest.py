"""Fixtures of the simulated Discord."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import discord
import pytest
import simcord
import simcord.backend.cdn
from aiohttp import web
from simcord.builders import ChannelHandle
from simcord.env import Env
from tiny import redness
from world import SimulatedCdn, SimulatedServer


@pytest.fixture
async def cdn(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimulatedCdn]:
    server = SimulatedCdn()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.base = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    monkeypatch.setattr(simcord.backend.cdn, "CDN_BASE", server.base)
    monkeypatch.setattr("bot.actions.discord_calls.PAUSE", 0.01)
    monkeypatch.setattr("bot.actions.shielding.QUIET", 0.0)
    # A process that starts first asks whether others have ended, for 0 s by the clock, which stands still here.
    monkeypatch.setattr("multiprocessing.process._cleanup", lambda: None)
    monkeypatch.setattr(discord.asset.Asset, "BASE", server.base)
    yield server
    await runner.cleanup()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return redness(tmp_path_factory.mktemp("model") / "moderator.onnx")


@pytest.fixture
async def _made(cdn: SimulatedCdn, model: Path, tmp_path: Path) -> AsyncIterator[SimulatedServer]:
    made = SimulatedServer(cdn, model, tmp_path)
    await made.parts()
    yield made
    await made.close()


@pytest.fixture
async def env(_made: SimulatedServer) -> AsyncIterator[Env]:
    """The simulation; its plugin finds it by its type and sets the clocks of the test."""
    env = Env(_made.bot, shard_count=1, settle_timeout=12)
    await env.start()
    yield env
    await env.shutdown()
    env.raise_errors()


@pytest.fixture
async def world(_made: SimulatedServer, env: Env) -> SimulatedServer:
    _made.furnish(env)
    await env.settle()
    return _made


@pytest.fixture
async def channels(world: SimulatedServer) -> list[ChannelHandle]:
    """Four channels."""
    made = [world.general, *(world.guild.create_text_channel(f"room-{number}") for number in range(3))]
    await world.env.settle()
    return made
