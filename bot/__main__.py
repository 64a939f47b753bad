"""`python -m bot --model moderator#prod`: watch a Discord server's pictures with the model that a git tag names."""

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
from bot.model.serving import Served, Serving
from bot.operation import logs
from bot.operation.health import Health
from bot.pictures.fetching import Fetcher
from bot.pictures.judging import Judge
from bot.services import Services
from bot.settings import Settings
from bot.storage.store import Store
from stages.inference import MLpyError, run

log = logging.getLogger(__name__)


SHUT_OUT = (
    discord.LoginFailure,
    discord.PrivilegedIntentsRequired,
    discord.ConnectionClosed,
    discord.GatewayNotFound,
    discord.HTTPException,
    aiohttp.ClientError,
)
"""How discord.py ends for good."""


class ConnectionFailedError(MLpyError):
    """Discord does not let the bot in."""


def main() -> int:
    """Serve until told to stop."""
    chosen = settings.read()
    serving = _serving(chosen)
    logs.configure(os.environ.get("MLPY_LOG", "INFO"), chosen.secrets, lambda: serving.version)
    release = serving.current.release
    log.info("serving %s", release.version, extra={"md5": release.md5, "commit": release.commit})
    _point(chosen)
    gc.collect()
    gc.freeze()  # to look through all that was imported, again and again, holds the event loop up for 0.1 s
    try:
        asyncio.run(_serve(chosen, serving))
    except SHUT_OUT as error:
        raise ConnectionFailedError(_refused(error)) from None
    return 0


def _refused(error: Exception) -> str:
    """Why Discord does not let the bot in, or no longer, and what to do about it."""
    code = getattr(error, "code", 0)
    if isinstance(error, discord.LoginFailure) or code == 4004:
        return "Discord does not know the token: is MLPY_DISCORD_TOKEN the bot's own?"
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return "Discord refuses the Message Content intent: switch it on in the developer portal, under Bot"
    if isinstance(error, discord.ConnectionClosed):
        return f"Discord closed the connection for good (code {code}): its table of gateway close codes says why"
    detail = f"HTTP {error.status}" if isinstance(error, discord.HTTPException) else type(error).__name__
    return f"Discord cannot be reached ({detail}): see whether it has an outage, then start again"


def _serving(chosen: Settings) -> Serving:
    """The model that is asked for, loaded and warmed up."""
    repository = Repository(chosen.repo)
    return Serving(repository, chosen.model, Served.load(repository.release(chosen.model)))


def _point(chosen: Settings) -> None:
    """Talk to another server than Discord's, if one is named."""
    if chosen.api:
        Route.BASE = chosen.api
    if chosen.gateway:
        DiscordWebSocket.DEFAULT_GATEWAY = URL(chosen.gateway)


async def _serve(chosen: Settings, serving: Serving) -> None:
    async with AsyncExitStack() as stack:
        stack.callback(subprocesses.stop_all)
        judge = Judge(chosen.judge)
        stack.callback(judge.close)
        store = await stack.enter_async_context(Store(chosen.database))
        fetcher = await stack.enter_async_context(Fetcher(chosen.origins, chosen.fetch))
        if chosen.check:
            print(f"ready to serve {serving.version} (md5 {serving.current.release.md5})")  # noqa: T201
            return
        services = Services.assemble(chosen, serving, store, fetcher, judge)
        bot = Bot(services)
        if chosen.port:
            await stack.enter_async_context(Health(chosen.port, bot, serving, store, judge, services.metrics))
        running, told = asyncio.create_task(bot.start(chosen.token)), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        stop = asyncio.create_task(told.wait())
        try:
            await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            log.info("stopping: what is under way is finished first", extra={"messages": bot.moderation.under_way})
        finally:
            await bot.close()
            for task in (running, stop):  # discord.py would go on trying to connect
                task.cancel()
            await asyncio.gather(running, stop, return_exceptions=True)
        log.info("stopped")


if __name__ == "__main__":
    run(main)
