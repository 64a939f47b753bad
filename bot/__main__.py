"""`python -m bot --model moderator#prod`: moderate a Discord server with the exact model that a git tag points to."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import AsyncExitStack

import aiohttp
import discord
from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL

from bot import settings
from bot.client import Bot
from bot.model import subprocesses
from bot.model.release import Repository
from bot.model.serving import LoadedModel, Serving
from bot.operation import logs
from bot.operation.health import Health
from bot.pictures.fetching import Fetcher
from bot.pictures.judging import Judge
from bot.services import Services
from bot.settings import Settings
from bot.storage.store import BotStore
from stages.inference import MLpyError, run

log = logging.getLogger(__name__)


FATAL_ERRORS = (
    discord.LoginFailure,
    discord.PrivilegedIntentsRequired,
    discord.ConnectionClosed,
    discord.GatewayNotFound,
    discord.HTTPException,
    aiohttp.ClientError,
)
"""What discord.py raises when it gives up for good."""


class ConnectionFailedError(MLpyError):
    """Discord refuses the connection or cannot be reached."""


def main() -> int:
    """Serve until a signal stops the process."""
    options = settings.read()
    serving = _load_model(options)
    # After the model is loaded, because each line of the log has its version.
    logs.configure(os.environ.get("MLPY_LOG", "INFO"), options.secrets, lambda: serving.version)
    release = serving.current.release
    log.info("serving %s", release.version, extra={"md5": release.md5, "commit": release.commit})
    _redirect_discord(options)
    gc.collect()
    gc.freeze()  # a full collection over all imported modules blocks the event loop for 0.1 s
    try:
        asyncio.run(_serve(options, serving))
    except FATAL_ERRORS as error:
        raise ConnectionFailedError(_explain(error)) from None
    return 0


def _load_model(options: Settings) -> Serving:
    """Load the requested model and warm it up."""
    repository = Repository(options.repo)
    return Serving(repository, options.model, LoadedModel.load(repository.release(options.model)))


def _redirect_discord(options: Settings) -> None:
    """Connect to another server that speaks Discord's protocol, if the settings name one."""
    if options.api:
        Route.BASE = options.api
    if options.gateway:
        DiscordWebSocket.DEFAULT_GATEWAY = URL(options.gateway)


def _explain(error: Exception) -> str:
    """Why the connection failed, and what to do about it."""
    code = getattr(error, "code", 0)
    if isinstance(error, discord.LoginFailure) or code == 4004:
        return "Discord rejected the token; check MLPY_DISCORD_TOKEN"
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return "Discord rejected the Message Content intent; enable it in the developer portal, under Bot"
    if isinstance(error, discord.ConnectionClosed):
        return f"Discord closed the connection (code {code}); look the code up in its table of gateway close codes"
    detail = f"HTTP {error.status}" if isinstance(error, discord.HTTPException) else type(error).__name__
    return f"Discord cannot be reached ({detail}); check the network and https://discordstatus.com, then start again"


async def _serve(options: Settings, serving: Serving) -> None:
    """Open the services, then run the bot. With `--check`, stop before connecting to Discord."""
    async with AsyncExitStack() as stack:
        # Closed in reverse order. At the very end, asyncio.run waits for threads with a running git or DVC.
        stack.callback(subprocesses.stop_all)
        judge = Judge(options.judge)
        stack.callback(judge.close)
        store = await stack.enter_async_context(BotStore(options.database))
        fetcher = await stack.enter_async_context(Fetcher(options.origins, options.fetch))
        if options.check:
            print(f"ready to serve {serving.version} (md5 {serving.current.release.md5})", flush=True)  # noqa: T201
            options.require_token()  # last: the model can be checked on a machine that has no token
            return
        services = Services.assemble(options, serving, store, fetcher, judge)
        bot = Bot(services)
        if options.port:
            await stack.enter_async_context(Health(options.port, bot, serving, store, judge, services.metrics))
        await _run_until_signal(bot, options.token)


async def _run_until_signal(bot: Bot, token: str) -> None:
    """Run the bot until SIGTERM, SIGINT, or an error that discord.py does not recover from."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    running, stop = asyncio.create_task(bot.start(token)), asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # raises what ended it
        log.info("stopping after the messages in progress", extra={"messages": bot.moderation.in_progress})
    finally:
        await bot.close()
        for task in (running, stop):  # without this, discord.py would keep trying to connect
            task.cancel()
        await asyncio.gather(running, stop, return_exceptions=True)
    log.info("stopped")


if __name__ == "__main__":
    run(main)
