"""The bot's process beside a Discord server over real sockets, with a real model, database and repository."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from bot_process import BotProcess
from discord_server import DiscordServer
from repository import GitProject
from room import TOKEN, Room


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> GitProject:
    """A repository with a trained model, which its working tree and its stage `prod` name."""
    project = GitProject.begin(tmp_path_factory.mktemp("trained") / "ours")
    project.track(project.folder.with_name("storage"))
    project.train(50)
    project.tags([("moderator@v1.0.0", "HEAD"), ("moderator#prod#1", "HEAD")])
    return project


@pytest.fixture(scope="module")
def workspace(project: GitProject) -> tuple[str, ...]:
    return "--model", "workspace", "--repo", str(project.folder)


@pytest_asyncio.fixture(loop_scope="module")
async def discord_() -> AsyncIterator[DiscordServer]:
    """A server of the test's own."""
    async with DiscordServer(token=TOKEN) as server:
        yield server
    assert not server.leaks


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bot(workspace: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BotProcess]:
    """One process and its server, for all tests that end neither."""
    async with DiscordServer(token=TOKEN) as server:
        async with BotProcess(server, tmp_path_factory.mktemp("shared"), *workspace) as bot:
            await bot.connected()
            yield bot
            assert await bot.stopped() == 0
        assert not server.leaks, "the token was sent to the CDN"
        assert not server.errors
        assert not server.unknown
        assert TOKEN not in bot.text()


@pytest_asyncio.fixture(loop_scope="module")
async def room(bot: BotProcess) -> Room:
    return await Room.furnished(bot.server)
