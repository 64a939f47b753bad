"""A picture host of our own on loopback: a web application in a subprocess that ends with the one that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiohttp import web

from stages.workspace.cache import cache_root
from stages.workspace.errors import CrawlError

HOST = "127.0.0.1"
PREFIX = "/img/"
"""Of the path of every address, as on a board's host."""
CACHE_CONTROL = "public, max-age=31536000"


@contextlib.contextmanager
def started(module: str, *arguments: str, whose: str) -> Iterator[tuple[str, int]]:
    """Run a module that calls `serve_until_input_closes` in a subprocess, which ends with the block or this process.

    Args:
        module: its name.
        arguments: for its command line.
        whose: the server, in an error message.

    Yields:
        Host and port.

    Raises:
        CrawlError: if the server does not start.
    """
    # A subprocess, because what the server does with pictures in this one would slow down the crawl that it serves.
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MLPY_CACHE": str(cache_root())},
        start_new_session=True,  # Ctrl-C must not reach the server: it ends when its input closes
    )
    assert process.stdin  # noqa: S101 (for the type checker: both are pipes)
    assert process.stdout  # noqa: S101
    try:
        port = process.stdout.readline()
        if not port:
            raise CrawlError(f"{whose} server did not start (exit code {process.wait()}); see its error message above")
        yield HOST, int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[int]:
    """Serve on a free loopback port; yields the port."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def serve_until_input_closes(application: web.Application) -> None:
    """Serve, print the port, and stop when standard input closes."""
    closed = asyncio.Event()

    def read_input() -> None:
        if not os.read(0, 1024):
            closed.set()

    async with serving(application) as port:
        print(port, flush=True)  # noqa: T201 (the command's answer)
        with contextlib.suppress(
            PermissionError
        ):  # a file or /dev/null cannot be watched; then Ctrl-C stops the server
            asyncio.get_running_loop().add_reader(0, read_input)
        await closed.wait()
