"""A picture host on loopback with every kind of failure."""

from __future__ import annotations

import asyncio
import gzip
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

PNG_START = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: int | None = None, shade: int = 0) -> bytes:
    """A grey PNG; with fewer `rows` than `height` it is broken."""
    body = (b"\0" + bytes([shade]) * width) * (height if rows is None else rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


GOOD = png(40, 30)


def response(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


HTML = ("Content-Type: text/html",)
IMAGE = ("Content-Type: image/png",)
RESPONSES = {
    "good": response("200 OK", GOOD, *IMAGE),
    "404": response("404 Not Found", b"gone", *HTML),
    "410": response("410 Gone"),
    "429": response("429 Too Many Requests"),
    "429-after": response("429 Too Many Requests", b"", "Retry-After: 1"),
    "429-hour": response("429 Too Many Requests", b"", "Retry-After: 3600"),
    "403": response("403 Forbidden", b"<html>no", *HTML),
    "500-empty": response("500 Internal Server Error"),
    "500-body": response("500 Internal Server Error", b"<html>oops", *HTML),
    "501": response("501 Not Implemented", b"<html>busy", *HTML),
    "503-after": response("503 Service Unavailable", b"<html>busy", *HTML, "Retry-After: 1"),
    "503": response("503 Service Unavailable", b"<html>busy", *HTML),
    "418": response("418 I'm a teapot"),
    "cut-off": response("200 OK", GOOD[:40], *IMAGE, length=len(GOOD)),
    "too-long": response("200 OK", GOOD + b"HTTP/1.1 200 OK", *IMAGE, length=len(GOOD)),
    "wrong-type": response("200 OK", GOOD, "Content-Type: text/plain"),
    "html": response("200 OK", b"<html>please wait</html>", *HTML),
    "cut-off-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n" + GOOD[:40],
    "garbage": b"\x16\x03\x01 no HTTP at all\r\n\r\n",
    "header-bomb": response("200 OK", GOOD, *IMAGE, *(f"X-{n}: {'x' * 8000}" for n in range(500))),
    "zero": response("200 OK", b"", *IMAGE),
    "truncated": response("200 OK", GOOD[:50], *IMAGE),
    "pixel-bomb": response("200 OK", png(30_000, 30_000, rows=1), *IMAGE),
    "gzip-bomb": response("200 OK", gzip.compress(bytes(50_000_000)), *IMAGE, "Content-Encoding: gzip"),
    "large-said": response("200 OK", b"", *IMAGE, length=10**12),
    "large-unsaid": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PNG_START + bytes(3_000_000),
    "loop": response("302 Found", b"", "Location: /loop"),
    "elsewhere": response("302 Found", b"", "Location: http://example.org/good"),
    "inward": response("302 Found", b"", "Location: http://10.0.0.1/good"),
    "nowhere": response("302 Found"),
    "no-address": response("302 Found", b"", "Location: http://[::1"),
    "moved": response("301 Moved Permanently", b"", "Location: /good"),
}


class FaultyHost:
    """Answers `/NAME` from `RESPONSES`; `/NAME~N/...` that way for the first N requests, and then with a picture."""

    def __init__(self) -> None:
        self.requested: Counter[str] = Counter()
        self.requests: list[str] = []
        self.port = 0
        self.host = "127.0.0.1"
        self.outage = ""
        """The name of the response to every request, while the whole host is out of order."""

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}/{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            path = request.split()[1].lstrip("/").split("?")[0]
            self.requested[path] += 1
            name, _, times = path.split("/")[0].partition("~")
            if times and self.requested[path] > int(times):
                name = "good"
            name = self.outage or name
            if name == "reset":
                writer.transport.abort()
                return
            if name == "slow":
                await asyncio.sleep(3600)
            if name == "drip":  # never silent for long, never done
                for part in RESPONSES["good"]:
                    writer.write(bytes([part]))
                    await asyncio.sleep(0.05)
            if name == "picture":  # /picture/N: another one for each N
                number = int(path.split("/")[1])
                writer.write(response("200 OK", png(40 + number, 30, shade=number % 256), *IMAGE))
            else:
                writer.write(RESPONSES.get(name, RESPONSES["404"]))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextmanager
def faulty_host() -> Iterator[FaultyHost]:
    """Run a `FaultyHost` on loopback, in a thread of its own."""
    host = FaultyHost()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(host._serve, host.host, 0))
    host.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield host
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
