"""A folder's picture host: answers on loopback at a board's addresses with the folder's files.

`python -m stages.folder.server FOLDER IMAGES` prints its port and serves until its standard input closes. IMAGES is the
catalogue: it has each picture's address, its file and the hash of its bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from aiohttp import web

from stages.config.download import Download
from stages.crawl import loopback
from stages.crawl.loopback import CACHE_CONTROL, PREFIX
from stages.folder import listing
from stages.workspace.errors import FolderError, run
from stages.workspace.paths import IMAGES


class FolderHost:
    """Answers requests with the files that the catalogue names, as long as their bytes are those that it describes."""

    def __init__(self, folder: Path, images: Path, max_bytes: int) -> None:
        self.root = listing.checked(folder)
        self.max_bytes = max_bytes
        self.images = pq.read_table(images, columns=["image_id", "name", "sha512", "url"]).combine_chunks()
        self.ids = self.images["image_id"].to_numpy()

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application()
        application.router.add_get(f"{PREFIX}{{path:.+}}", self.respond)
        return application

    async def respond(self, request: web.Request) -> web.Response:
        """Handle one request."""
        found = self.file(request.path)
        data = await asyncio.to_thread(self.read, *found) if found else None
        if data is None:
            raise web.HTTPNotFound
        kind = f"image/{request.path.rpartition('.')[2]}"
        return web.Response(body=data, content_type=kind, headers={"Cache-Control": CACHE_CONTROL})

    def file(self, path: str) -> tuple[str, str] | None:
        """Name and SHA-512 of the picture at the path of an address, `/img/2000/1/1/ID/full.png`."""
        number = path.split("/")[-2]
        if not (number.isdecimal() and len(number) < 19):
            return None
        place = int(np.searchsorted(self.ids, int(number)))
        if place == len(self.ids) or self.ids[place] != int(number):
            return None
        row = self.images.slice(place, 1).to_pylist()[0]
        return (row["name"], row["sha512"]) if row["url"].endswith(path) else None

    def read(self, name: str, sha512: str) -> bytes | None:
        """A file's bytes; None if it is gone, or has changed since the dump was made."""
        try:
            data = listing.read(self.root, name, self.max_bytes)
        except OSError:
            return None
        return data if data is not None and hashlib.sha512(data).hexdigest() == sha512 else None


@contextlib.contextmanager
def opened(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the folder; yields its host names -> the address and port to connect to instead.

    Raises:
        FolderError: if the catalogue asks for smaller versions than the files, which a folder does not have.
        CrawlError: if the server does not start.
    """
    addresses = pq.read_table(IMAGES, columns=["url"])["url"]
    if not pc.all(pc.match_substring_regex(addresses, r"/full\.[^/]*$"), min_count=0).as_py():
        raise FolderError("a folder has its pictures in full size only; set extract.version=full")
    arguments = (params.folder.pictures, str(IMAGES.absolute()), "--max-bytes", str(params.max_bytes))
    folder = str(Path(arguments[0]).absolute())
    with loopback.started(__name__, folder, *arguments[1:], whose="the folder's") as address:
        yield dict.fromkeys(params.hosts, address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.folder.server", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of pictures")
    parser.add_argument("images", type=Path, help="images.parquet that was extracted from the folder's dump")
    parser.add_argument("--max-bytes", type=int, default=2**62, help="largest file to serve (default: any)")
    options = parser.parse_args()
    host = FolderHost(options.folder, options.images, options.max_bytes)
    asyncio.run(loopback.serve_until_input_closes(host.application()))


if __name__ == "__main__":
    run(main)
