"""/healthz and /metrics on loopback, for whatever watches the bot."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Protocol

from aiohttp import web

from bot.model.serving import Serving
from bot.operation.metrics import Metrics
from bot.pictures.judging import Judge
from bot.storage.store import Store
from stages.inference import MLpyError

TICK = 0.05
"""Seconds between two looks at how late the event loop runs."""


class PortError(MLpyError):
    """The port of /healthz and /metrics cannot be had."""


class Connection(Protocol):
    """The connection to Discord, as discord.py's clients know it."""

    @property
    def latency(self) -> float:
        """Seconds between a heartbeat and its answer; NaN or infinite while there is none."""

    def is_ready(self) -> bool:
        """Whether events arrive."""


class Health:
    """A tiny HTTP server. Use it as an async context manager."""

    def __init__(
        self, port: int, connection: Connection, serving: Serving, store: Store, judge: Judge, metrics: Metrics
    ) -> None:
        self._port = port
        self._connection = connection
        self._serving = serving
        self._store = store
        self._judge = judge
        self._numbers = metrics
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
            self._numbers.lag.observe(max(0.0, time.perf_counter() - due))

    async def _healthz(self, _request: web.Request) -> web.Response:
        """200 if the bot hears Discord and its database takes what it writes, else 503; what is wrong is in it."""
        ready = self._connection.is_ready()
        latency = self._connection.latency if ready else math.nan
        state = {
            "ready": ready,
            "latency_s": None if math.isnan(latency) or math.isinf(latency) else round(latency, 3),
            "model": self._serving.version,
            "queue": self._judge.admitted,
            "store_waiting": self._store.waiting,
        }
        sound = ready and state["latency_s"] is not None and not self._store.away
        return web.json_response(state, status=200 if sound else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        self._numbers.queue.set(self._judge.admitted)
        self._numbers.waiting.set(self._store.waiting)
        self._numbers.model.info({"version": self._serving.version, "md5": self._serving.current.release.md5})
        return web.Response(body=self._numbers.exposition(), headers={"Content-Type": self._numbers.content_type})
