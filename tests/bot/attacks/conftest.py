"""The bot's process and servers that are attacked: as in `sockets`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from discord_server import DiscordServer
from repository import GitProject
from room import TOKEN


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The words of a command line for a trained model."""
    project = GitProject.begin(tmp_path_factory.mktemp("trained") / "ours")
    project.track(project.folder.with_name("storage"))
    project.train(50)
    return "--model", "workspace", "--repo", str(project.folder)


@pytest_asyncio.fixture(loop_scope="module")
async def discord_() -> AsyncIterator[DiscordServer]:
    """A server of the test's own."""
    async with DiscordServer(token=TOKEN, guilds=2) as server:
        yield server
    assert not server.leaks
    assert not server.errors
    assert not server.unknown
