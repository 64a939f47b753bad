"""/healthz and /metrics on loopback, for whatever watches the bot."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING

from aiohttp import web

from stages.inference import MLpyError

if TYPE_CHECKING:
    from bot.client import Bot

TICK = 0.05
"""Seconds between two looks at how late the event loop runs."""


class PortError(MLpyError):
    """The port of /healthz and /metrics cannot be had."""


class Health:
    """A tiny HTTP server. Use it as an async context manager."""

    def __init__(self, bot: Bot, port: int) -> None:
        self._bot = bot
        self._port = port
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Health:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortError(
                f"--port {self._port} cannot be served ({os.strerror(error.errno or 0)}); name another"
            ) from None
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self._bot.metrics.lag.observe(max(0.0, time.perf_counter() - due))

    async def _healthz(self, _request: web.Request) -> web.Response:
        """200 if the bot hears Discord and its database takes what it writes, else 503; what is wrong is in it."""
        bot = self._bot
        latency = bot.latency if bot.is_ready() else math.nan
        state = {
            "ready": bot.is_ready(),
            "latency_s": None if math.isnan(latency) or math.isinf(latency) else round(latency, 3),
            "model": bot.serving.version,
            "queue": bot.judge.admitted,
            "store_waiting": bot.store.waiting,
        }
        sound = bot.is_ready() and state["latency_s"] is not None and not bot.store.away
        return web.json_response(state, status=200 if sound else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        bot = self._bot
        bot.metrics.queue.set(bot.judge.admitted)
        bot.metrics.waiting.set(bot.store.waiting)
        bot.metrics.model.info({"version": bot.serving.version, "md5": bot.serving.current.release.md5})
        return web.Response(body=bot.metrics.exposition(), headers={"Content-Type": bot.metrics.content_type})
