"""The sample board's picture server: it answers on loopback as a Philomena board's picture host does.

`python -m stages.sample.server` prints its port and serves until its standard input ends, as when its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from stages.config.download import Download, Faults
from stages.philomena import addresses
from stages.sample import openclipart
from stages.sample.openclipart import Library
from stages.sample.rendering import Renderings
from stages.sample.uploads import Image, draw, images
from stages.workspace.cache import cache_root
from stages.workspace.errors import SampleError, run

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PREFIX = "/img/"
CACHING = "public, max-age=31536000"
RETRY_AFTER = 1
"""Seconds; the header knows no fractions."""
NO_FAULTS = Faults()
SLOW = 0.4
"""Seconds that a slow answer takes."""


@dataclass(frozen=True)
class Page:
    """What an address shows."""

    picture: str
    version: str | None
    """None: the original."""


def pages(uploaded: list[Image]) -> dict[str, Page]:
    """Every address that the board answers, below its root. Removed and merged images have none."""
    found: dict[str, Page] = {}
    for image in uploaded:
        if image.hidden:
            continue
        created, size = image.created_at, image.picture.measures
        original = Page(image.picture.name, None)
        folder = addresses.picture_path(created, image.id, image.format, size.width, size.height, "full").rpartition(
            "/"
        )[0]
        found[f"view/{folder}.{image.format.lower()}"] = original
        for version in ("full", *addresses.VERSIONS):
            if addresses.served_version(size.width, size.height, version) == version:
                path = addresses.picture_path(created, image.id, image.format, size.width, size.height, version)
                found[path] = original if version == "full" else Page(image.picture.name, version)
    return found


class Board:
    """Answers requests; the first answer of some addresses is spoiled, which ones follows from the address."""

    def __init__(self, library: Library, faults: Faults) -> None:
        self.library = library
        self.pages = pages(images(library.contents))
        self.renderings = Renderings.within(library.folder)
        self.shares = dataclasses.asdict(faults)
        self.asked: set[str] = set()
        self.renderers = ThreadPoolExecutor(os.cpu_count() or 1)  # Pillow lets go of the interpreter

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application()
        application.router.add_get(f"{PREFIX}{{path:.+}}", self.answer)
        return application

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request's answer."""
        path = request.path.removeprefix(PREFIX)
        fault = self.fault(path)
        if fault == "throttled":
            return web.Response(status=429, text="Too many requests", headers={"Retry-After": str(RETRY_AFTER)})
        if fault == "overloaded":
            return web.Response(status=501, text="<h1>Not Implemented</h1>", content_type="text/html")
        if fault == "unavailable":
            return web.Response(status=503, text="Service unavailable")
        if fault == "slow":
            await asyncio.sleep(SLOW)
        page = self.pages.get(path)
        if page is None:
            raise web.HTTPNotFound
        file = await self.file(page)
        if fault == "cut_off":
            return await self.cut_off(request, file)
        return web.FileResponse(file, headers={"Cache-Control": CACHING})

    def fault(self, path: str) -> str | None:
        """What to spoil this answer with: only an address's first one, so that a client that tries again gets it."""
        if path in self.asked:
            return None
        self.asked.add(path)
        place = draw("fault", path) / 2**64
        for name, share in self.shares.items():
            if place < share:
                return name
            place -= share
        return None

    async def file(self, page: Page) -> Path:
        """The file that an address shows; a version is made first, where it is not there yet."""
        if page.version is None:
            return self.library.file(page.picture)
        return await asyncio.get_running_loop().run_in_executor(
            self.renderers,
            self.renderings.version,
            page.picture,
            self.library.source(page.picture),
            page.version,
        )

    async def cut_off(self, request: web.Request, file: Path) -> web.StreamResponse:
        """Promise the whole file, send half of it, and hang up."""
        data = await asyncio.to_thread(file.read_bytes)
        response = web.StreamResponse(headers={"Cache-Control": CACHING, "Content-Type": "image/png"})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if request.transport:
            request.transport.close()
        return response


@contextlib.asynccontextmanager
async def serving(board: Board) -> AsyncIterator[int]:
    """Serve on a free loopback port; yields the port."""
    runner = web.AppRunner(board.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        board.renderers.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def serve(faults: Faults = NO_FAULTS, library: Library | None = None) -> Iterator[tuple[str, int]]:
    """Serve the sample board's pictures from a process of their own, which ends with the block or with this process.

    A machine that has the board's dump but not its pictures fetches and measures them first: about a minute.

    Args:
        faults: shares of first answers to spoil.
        library: the pictures; the sample's by default.

    Yields:
        Host and port.

    Raises:
        SampleError: if the pictures cannot be had, or the server does not start.
    """
    library = library or openclipart.gathered()
    command = [
        sys.executable,
        "-m",
        "stages.sample.server",
        str(library.folder),
        json.dumps(dataclasses.asdict(faults)),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MLPY_CACHE": str(cache_root())},
        start_new_session=True,  # Ctrl-C is for us: the server sees its input end
    )
    assert process.stdin  # noqa: S101 (for the type checker: both are pipes)
    assert process.stdout  # noqa: S101
    try:
        port = process.stdout.readline()
        if not port:
            raise SampleError(f"the sample board's server did not start (exit code {process.wait()}); see above")
        yield HOST, int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def opened(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the sample board under the name of its host; yields host -> address and port to connect to instead."""
    with serve(params.faults) as address:
        yield dict.fromkeys(params.hosts, address)


async def until_input_ends(board: Board) -> None:
    """Serve, print the port, and stop when standard input ends."""
    ended = asyncio.Event()

    def look() -> None:
        if not os.read(0, 1024):
            ended.set()

    async with serving(board) as port:
        print(port, flush=True)  # noqa: T201 (the command's answer)
        with contextlib.suppress(PermissionError):  # a file or /dev/null cannot be watched: then until Ctrl-C
            asyncio.get_running_loop().add_reader(0, look)
        await ended.wait()


def main() -> None:
    """Serve the library in a folder, with faults as JSON; or the sample's, without."""
    parser = argparse.ArgumentParser(prog="python -m stages.sample.server", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="of a gathered library; default: the sample's")
    parser.add_argument("faults", nargs="?", type=json.loads, default={}, help='as {"throttled": 0.02}; default: none')
    given = parser.parse_args()
    library = openclipart.read(given.folder) if given.folder else openclipart.gathered()
    asyncio.run(until_input_ends(Board(library, Faults(**given.faults))))


if __name__ == "__main__":
    run(main)
