"""How the process begins and ends: stops, refusals, a port that is taken."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from repository import GitProject
from room import TOKEN
from tiny import blue

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_finishes_the_pictures_in_progress(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path, number: int
) -> None:
    server = discord_
    released = asyncio.Event()
    held = server.fail("GET", "/attachments/*", hold=released, times=6)
    async with BotProcess(server, tmp_path, "--grace", "120", "--seconds", "120", *workspace) as bot:
        await bot.connected()
        sent = [await server.post(server.channel, server.user, "", [blue(seed)]) for seed in range(6)]
        await bot.until(lambda: not held["times"])
        assert not any(bot.verdicts(message) for message in sent)
        bot.process.send_signal(number)
        await bot.until(lambda: "stopping after the messages in progress" in bot.text())
        released.set()
        assert await bot.stopped(None) == 0
        assert [bot.verdicts(message) for message in sent] == [["clean"]] * 6
        assert not server.sessions, "it did not say goodbye"
        assert bot.log()[-1]["event"] == "stopped"


async def test_pictures_not_finished_in_time_are_logged(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    slow = server.fail("GET", "/attachments/*", delay=60, times=3)
    async with BotProcess(server, tmp_path, "--grace", "0.5", "--seconds", "60", *workspace) as bot:
        await bot.connected()
        sent = [await server.post(server.channel, server.user, "", [blue(seed)]) for seed in range(3)]
        await bot.until(lambda: not slow["times"])
        assert await bot.stopped() == 0
        late = [line["message_id"] for line in bot.log() if line["event"].startswith("stopped before")]
        assert sorted(late) == sent
        assert "Traceback" not in bot.text()


async def test_a_hanging_check_for_a_new_tag_does_not_delay_a_stop(
    project: GitProject, discord_: DiscordServer, tmp_path: Path
) -> None:
    hang, hangs, git = (tmp_path / name for name in ("hang", "hangs", "git"))
    git.write_text(f'#!/bin/sh\ntest -e {hang} && touch {hangs} && exec sleep 300\nexec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    words = ("--model", "HEAD", "--poll", "0.2", "--repo", str(project.folder))
    async with BotProcess(discord_, tmp_path, *words, PATH=path) as bot:
        await bot.connected()
        hang.touch()
        await bot.until(hangs.exists)
        assert await bot.stopped() == 0


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"token": "another"}, "Discord rejected the token"),
        ({"privileged": False}, "rejected the Message Content intent"),
        ({"api": "http://127.0.0.1:9"}, "Discord cannot be reached (ClientConnectorError)"),
    ],
    ids=["token", "intent", "outage"],
)
async def test_a_refused_login_is_reported_in_one_sentence(
    workspace: tuple[str, ...], tmp_path: Path, trouble: dict[str, Any], message: str
) -> None:
    trouble = {"token": TOKEN} | trouble
    api = {"MLPY_DISCORD_API": trouble.pop("api")} if "api" in trouble else {}
    async with (
        DiscordServer(**trouble) as server,
        BotProcess(server, tmp_path, *workspace, MLPY_DISCORD_TOKEN=TOKEN, **api) as bot,
    ):
        assert await bot.stopped(None) == 1
        (error,) = [line["event"] for line in bot.log() if line["level"] == "error"]
        assert message in error
        assert "Traceback" not in bot.text()
        assert TOKEN not in bot.text()


async def test_a_port_in_use_is_reported_in_one_sentence(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    bot = BotProcess(discord_, tmp_path, *workspace)
    with socket.create_server(("127.0.0.1", bot.port)):
        async with bot:
            assert await bot.stopped(None) == 1
            assert f"--port {bot.port} cannot be opened (Address already in use)" in bot.log()[-1]["event"]
            assert "Traceback" not in bot.text()


async def test_it_can_be_stopped_while_the_gateway_is_out_of_reach(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    discord_.gateway = "ws://127.0.0.1:9/gateway"
    async with BotProcess(discord_, tmp_path, *workspace) as bot:
        await bot.until(lambda: "Failed to connect" in bot.text())
        assert await bot.stopped() == 0


async def test_a_revoked_token_ends_the_process_with_one_sentence(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    async with BotProcess(discord_, tmp_path, *workspace) as bot:
        await bot.connected()
        discord_.token = "another"
        await discord_.drop()
        assert await bot.stopped(None) == 1
        assert "check MLPY_DISCORD_TOKEN" in bot.log()[-1]["event"]
        assert "Traceback" not in bot.text()
