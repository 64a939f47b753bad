"""The bot as its operator runs it: `async with BotProcess(server, folder) as bot`, a process beside the Discord server.

Its database is a SQLite file in `folder`, unless another one is named; so is its log, of both its outputs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
from discord_server import DiscordServer

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BotProcess:
    """One process.

    Args:
        server: What it takes for Discord.
        folder: Of its own, empty.
        words: Further words of its command line, after `--port`.
        database: SQLAlchemy URL.
        environment: Further variables.
    """

    def __init__(
        self, server: DiscordServer, folder: Path, *words: str, database: str = "", **environment: str
    ) -> None:
        self.server, self.port = server, free_port()
        self.command = [sys.executable, "-m", "bot", "--port", str(self.port), *words]
        self.file, self.output = folder / "bot.sqlite", folder / "output.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLPY_")}
        self.environment = inherited | {
            "MLPY_DISCORD_API": server.api,
            "MLPY_DISCORD_GATEWAY": server.gateway,
            "MLPY_DISCORD_CDN": server.cdn,
            "MLPY_DISCORD_TOKEN": server.token,
            "MLPY_BOT_DATABASE": database or f"sqlite:///{self.file}",
            "MLPY_CACHE": str(folder / "cache"),
            **environment,
        }

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")
        with self.output.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=ROOT, env=self.environment, stdout=output, stderr=output
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._session.close()

    async def until(self, true: Callable[[], Any], seconds: float = 1800.0) -> None:
        """Wait for something to come true, as long as the process lives."""
        await self.server.until(lambda: self.process.returncode is not None or true(), seconds)
        assert self.process.returncode is None, self.text()

    async def connected(self) -> None:
        """Wait until it hears of messages."""
        await self.until(lambda: len(self.server.sessions) > 0)

    async def stopped(self, number: int | None = signal.SIGTERM, seconds: float = 1800.0) -> int:
        """Its exit code, after that signal."""
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), seconds)

    def command_line(self) -> str:
        """As any user of the machine may see it."""
        if not Path("/proc/self/cmdline").exists():
            return " ".join(self.command)
        return Path(f"/proc/{self.process.pid}/cmdline").read_text()

    def text(self) -> str:
        """What it wrote so far."""
        return self.output.read_text()

    def log(self) -> list[dict[str, Any]]:
        """The same, a line an object."""
        return [json.loads(line) for line in self.text().splitlines(keepends=True) if line.endswith("\n")]

    def rows(self, query: str, *values: object) -> list[Any]:
        """Of its SQLite database, which it may not have made yet."""
        try:
            with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []

    def verdicts(self, message: int) -> list[str]:
        """Of the decisions on a message."""
        return [verdict for (verdict,) in self.rows("SELECT verdict FROM decisions WHERE message_id = ?", message)]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body, from what watches the bot."""
        async with self._session.get(path) as response:
            return response.status, await response.text()

    async def healthy(self, seconds: float = 1800.0, **expected: object) -> dict[str, Any]:
        """What /healthz says as soon as all is well and it says that."""
        async with asyncio.timeout(seconds):
            while self.process.returncode is None:
                with suppress(aiohttp.ClientConnectorError):  # it does not listen yet
                    status, text = await self.get("/healthz")
                    if status == 200 and expected.items() <= json.loads(text).items():
                        return dict(json.loads(text))
                await asyncio.sleep(0.05)
        raise AssertionError(self.text())

    async def metrics(self) -> dict[str, float]:
        """Value by name and labels, as Prometheus reads them."""
        _, text = await self.get("/metrics")
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}
