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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from stages.config.download import Download, Faults
from stages.crawl import loopback
from stages.crawl.loopback import CACHE_CONTROL, PREFIX
from stages.philomena import addresses
from stages.sample import openclipart
from stages.sample.openclipart import Library
from stages.sample.rendering import Renderings
from stages.sample.uploads import Upload, draw, uploads
from stages.workspace.errors import run

log = logging.getLogger(__name__)

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
        """The web application, with which the renderers end."""
        application = web.Application()
        application.on_cleanup.append(self.close)
        application.router.add_get(f"{PREFIX}{{path:.+}}", self.respond)
        return application

    async def close(self, _: web.Application) -> None:
        """Let go of the renderers."""
        self.renderers.shutdown(wait=False, cancel_futures=True)

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
        SampleError: if the pictures cannot be downloaded.
        CrawlError: if the server does not start.
    """
    library = library or openclipart.gather()
    faults_text = json.dumps(dataclasses.asdict(faults))
    with loopback.started(__name__, str(library.folder), faults_text, whose="the sample board's") as address:
        yield address


@contextlib.contextmanager
def opened(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the sample board; yields its host names -> the address and port to connect to instead."""
    with serve(params.faults) as address:
        yield dict.fromkeys(params.hosts, address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.sample.server", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of an unpacked library (default: the sample's)")
    parser.add_argument(
        "faults", nargs="?", type=json.loads, default={}, help='JSON, for example {"throttled": 0.02} (default: none)'
    )
    options = parser.parse_args()
    library = openclipart.read(options.folder) if options.folder else openclipart.gather()
    host = PictureHost(library, Faults(**options.faults))
    asyncio.run(loopback.serve_until_input_closes(host.application()))


if __name__ == "__main__":
    run(main)
