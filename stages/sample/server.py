"""The sample board's picture host: answers on loopback with a real board's addresses, signals and faults.

`python -m stages.sample.server` prints its port and serves until its standard input closes, as it does when the parent
process ends.
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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from stages.config.download import Download, Faults
from stages.philomena import addresses
from stages.sample import openclipart
from stages.sample.openclipart import Library
from stages.sample.rendering import Renderings
from stages.sample.uploads import Upload, draw, uploads
from stages.workspace.cache import cache_root
from stages.workspace.errors import SampleError, run

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PREFIX = "/img/"
CACHE_CONTROL = "public, max-age=31536000"
RETRY_AFTER = 1
"""Seconds; the header takes integers only."""
NO_FAULTS = Faults()
SLOW = 0.4
"""Seconds that a slow response takes."""


@dataclass(frozen=True)
class ServedPicture:
    """What an address returns."""

    name: str
    """In the library."""
    version: str | None
    """None for the original."""


def addressed(uploaded: Sequence[Upload]) -> dict[str, ServedPicture]:
    """Every address of the board, below its root. Removed and merged images have none."""
    served: dict[str, ServedPicture] = {}
    for image in uploaded:
        if image.hidden:
            continue
        width, height = image.picture.statistics.width, image.picture.statistics.height
        path = partial(addresses.picture_path, image.created_at, image.id, image.format, width, height)
        original = ServedPicture(image.picture.name, None)
        served[path("full")] = original
        served[f"view/{path('full').rpartition('/')[0]}.{image.format.lower()}"] = original
        for version in addresses.VERSIONS:
            if addresses.has_version(width, height, version):
                served[path(version)] = ServedPicture(image.picture.name, version)
    return served


class PictureHost:
    """Answers requests, and spoils the first response of some addresses; a hash of the address decides which."""

    def __init__(self, library: Library, faults: Faults) -> None:
        self.library = library
        self.served = addressed(uploads(library.contents))
        self.renderings = Renderings.within(library.folder)
        self.shares = dataclasses.asdict(faults)
        self.requested: set[str] = set()
        self.renderers = ThreadPoolExecutor(os.cpu_count() or 1)  # Pillow releases the interpreter's lock

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application()
        application.router.add_get(f"{PREFIX}{{path:.+}}", self.respond)
        return application

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Handle one request."""
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
        picture = self.served.get(path)
        if picture is None:
            raise web.HTTPNotFound
        file = await self.file(picture)
        if fault == "cut_off":
            return await self.cut_off(request, file)
        return web.FileResponse(file, headers={"Cache-Control": CACHE_CONTROL})

    def fault(self, path: str) -> str | None:
        """The fault of this response. Only an address's first response has one, so a client that retries succeeds."""
        if path in self.requested:
            return None
        self.requested.add(path)
        # A number in [0, 1) that depends on the path alone, so that every run meets the same faults.
        place = draw("fault", path) / 2**64
        for name, share in self.shares.items():
            if place < share:
                return name
            place -= share
        return None

    async def file(self, picture: ServedPicture) -> Path:
        """The file to send; a version is rendered first if it is missing."""
        if picture.version is None:
            return self.library.file(picture.name)
        return await asyncio.get_running_loop().run_in_executor(
            self.renderers,
            self.renderings.version,
            picture.name,
            self.library.source(picture.name),
            picture.version,
        )

    async def cut_off(self, request: web.Request, file: Path) -> web.StreamResponse:
        """Announce the whole file, send half of it, and close the connection."""
        data = await asyncio.to_thread(file.read_bytes)
        response = web.StreamResponse(headers={"Cache-Control": CACHE_CONTROL, "Content-Type": "image/png"})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if request.transport:
            request.transport.close()
        return response


@contextlib.asynccontextmanager
async def serving(host: PictureHost) -> AsyncIterator[int]:
    """Serve on a free loopback port; yields the port."""
    runner = web.AppRunner(host.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        host.renderers.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def serve(faults: Faults = NO_FAULTS, library: Library | None = None) -> Iterator[tuple[str, int]]:
    """Serve the sample board's pictures from a subprocess, which ends with the block or with this process.

    A machine that has the board's dump but not its pictures downloads and measures them first: about a minute.

    Args:
        faults: shares of first responses to spoil.
        library: the pictures; by default the sample board's.

    Yields:
        Host and port.

    Raises:
        SampleError: if the pictures cannot be downloaded, or the server does not start.
    """
    library = library or openclipart.gather()
    # A subprocess, because rendering pictures in this one would slow down the crawl that it serves.
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
        start_new_session=True,  # Ctrl-C must not reach the server: it ends when its input closes
    )
    assert process.stdin  # noqa: S101 (for the type checker: both are pipes)
    assert process.stdout  # noqa: S101
    try:
        port = process.stdout.readline()
        if not port:
            raise SampleError(
                f"the sample board's server did not start (exit code {process.wait()}); see its error message above"
            )
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
    """Serve the sample board; yields its host names -> the address and port to connect to instead."""
    with serve(params.faults) as address:
        yield dict.fromkeys(params.hosts, address)


async def serve_until_input_closes(host: PictureHost) -> None:
    """Serve, print the port, and stop when standard input closes."""
    closed = asyncio.Event()

    def read_input() -> None:
        if not os.read(0, 1024):
            closed.set()

    async with serving(host) as port:
        print(port, flush=True)  # noqa: T201 (the command's answer)
        with contextlib.suppress(
            PermissionError
        ):  # a file or /dev/null cannot be watched; then Ctrl-C stops the server
            asyncio.get_running_loop().add_reader(0, read_input)
        await closed.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.sample.server", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of an unpacked library (default: the sample's)")
    parser.add_argument(
        "faults", nargs="?", type=json.loads, default={}, help='JSON, for example {"throttled": 0.02} (default: none)'
    )
    options = parser.parse_args()
    library = openclipart.read(options.folder) if options.folder else openclipart.gather()
    asyncio.run(serve_until_input_closes(PictureHost(library, Faults(**options.faults))))


if __name__ == "__main__":
    run(main)
