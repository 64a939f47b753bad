"""/healthz and /metrics on loopback, for monitoring."""

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
from bot.storage.store import BotStore
from stages.inference import MLpyError

TICK = 0.05
"""Seconds between two measurements of the event loop's delay."""


class PortError(MLpyError):
    """The port of /healthz and /metrics cannot be opened."""


class GatewayStatus(Protocol):
    """What discord.py's clients report about their connection to Discord."""

    @property
    def latency(self) -> float:
        """Seconds between a heartbeat and its acknowledgement; NaN or infinite without a connection."""

    def is_ready(self) -> bool:
        """Whether events arrive."""


class Health:
    """An HTTP server on 127.0.0.1. Use it as an async context manager."""

    def __init__(
        self, port: int, gateway: GatewayStatus, serving: Serving, store: BotStore, judge: Judge, metrics: Metrics
    ) -> None:
        self._port = port
        self._gateway = gateway
        self._serving = serving
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self._lag_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Health:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._get_health), web.get("/metrics", self._get_metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            # Loopback only: there is no authentication.
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            reason = os.strerror(error.errno or 0)
            raise PortError(f"--port {self._port} cannot be opened ({reason}); choose another port") from None
        self._lag_task = asyncio.create_task(self._measure_lag())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._lag_task is not None:
            self._lag_task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _measure_lag(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self._metrics.lag.observe(max(0.0, time.perf_counter() - due))

    async def _get_health(self, _request: web.Request) -> web.Response:
        """200 if Discord's events arrive and the database takes writes, otherwise 503. The body says what is wrong."""
        ready = self._gateway.is_ready()
        latency = self._gateway.latency if ready else math.nan
        connected = math.isfinite(latency)
        state = {
            "ready": ready,
            "latency_s": round(latency, 3) if connected else None,
            "model": self._serving.version,
            "queue": self._judge.admitted,
            "store": "away" if self._store.away else "ok",
            "store_waiting": self._store.waiting,
        }
        return web.json_response(state, status=200 if connected and not self._store.away else 503)

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        metrics = self._metrics
        # Gauges are read when Prometheus asks, instead of being kept up to date all the time.
        metrics.queue.set(self._judge.admitted)
        metrics.waiting.set(self._store.waiting)
        metrics.store_errors.set(self._store.errors)
        metrics.model.info({"version": self._serving.version, "md5": self._serving.current.release.md5})
        return web.Response(body=metrics.exposition(), headers={"Content-Type": metrics.content_type})
