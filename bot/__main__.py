"""`python -m bot --model moderator#prod`: watch a Discord server's pictures with the model that a git tag names."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack

import discord
from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL

from bot import logs, settings
from bot.client import Bot
from bot.fetching import Fetcher
from bot.health import Health
from bot.judging import Judge
from bot.release import Repository
from bot.serving import Served, Serving
from bot.settings import Settings
from bot.store import Store
from stages.errors import MLpyError, run

log = logging.getLogger(__name__)


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
    try:
        asyncio.run(_serve(chosen, serving))
    except discord.LoginFailure:
        raise ConnectionFailedError("Discord does not know the token: is MLPY_DISCORD_TOKEN the bot's own?") from None
    except discord.PrivilegedIntentsRequired:
        raise ConnectionFailedError(
            "Discord refuses the Message Content intent: switch it on in the developer portal, under Bot"
        ) from None
    return 0


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
        judge = Judge(chosen.judge)
        stack.callback(judge.close)
        store = await stack.enter_async_context(Store(chosen.database))
        fetcher = await stack.enter_async_context(Fetcher(chosen.origins, chosen.fetch))
        if chosen.check:
            print(f"ready to serve {serving.version} (md5 {serving.current.release.md5})")  # noqa: T201
            return
        bot = Bot(chosen, serving, store, fetcher, judge)
        if chosen.port:
            await stack.enter_async_context(Health(bot, chosen.port))
        running = asyncio.create_task(bot.start(chosen.token))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: asyncio.ensure_future(_stop(bot)))
        try:
            await running
        finally:
            await bot.close()
        log.info("stopped")


async def _stop(bot: Bot) -> None:
    log.info("stopping: what is under way is finished first", extra={"messages": bot.moderation.under_way})
    await bot.close()


if __name__ == "__main__":
    run(main)
