"""A picture host on loopback that fails in every way that hosts do: the path says how."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from tinted import file

PNG = file("red")
SIGNED = "ex=6650a1b2&is=664f5032&hm=0123456789abcdef"
"""The query that Discord signs its URLs with: who has it can fetch the picture."""
BODIES = {
    "png": PNG,
    "jpeg": file("red", kind="JPEG"),
    "gif": file("red", "blue", kind="GIF"),
    "webp": file("red", kind="WEBP"),
    "html": b"<!doctype html><title>Just a moment...</title>" + b" " * 500,
    "json": b'{"message": "This content is no longer available."}',
    "zero": b"",
    "tiny": b"GIF",
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100),
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(100),
    "heic": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100),
    "bmp": b"BM" + bytes(100),
    "tiff": b"II*\0" + bytes(100),
    "jxl": b"\xff\x0a" + bytes(100),
    "riff": b"RIFF\0\0\0\0WAVEfmt " + bytes(100),
}


class FaultyCdn:
    """Answers `/WORD`: a body of `BODIES`, a status (several, one a request, as `/500,500,png`), or a fault."""

    def __init__(self) -> None:
        self.origin = ""
        self.elsewhere = ""
        """Where `/away` leads."""
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.sent = 0
        """Bytes of endless bodies."""
        self.over = asyncio.Event()

    def url(self, path: str) -> str:
        return f"{self.origin}/{path}?{SIGNED}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        self.headers.append(dict(request.headers))
        words = path.split(",")
        word = words[min(self.asked[path], len(words) - 1)]
        self.asked[path] += 1
        if word in BODIES:
            return web.Response(body=BODIES[word], content_type="image/png")
        status, _, after = word.partition("-")
        if status.isdigit():
            headers = {"Retry-After": after} if after else {}
            return web.Response(status=int(status), text="<html>no</html>", headers=headers)
        faulty = getattr(self, f"_{status}", None)
        if faulty is None:
            return web.Response(status=404)
        fault: web.StreamResponse = await faulty(request, int(after or 0))
        return fault

    async def _away(self, request: web.Request, status: int) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{self.elsewhere}/png"})

    async def _here(self, request: web.Request, status: int) -> web.Response:
        return web.Response(status=status, headers={"Location": "/png"})

    async def _gzip(self, request: web.Request, size: int) -> web.Response:
        return web.Response(body=gzip.compress(PNG + bytes(size)), headers={"Content-Encoding": "gzip"})

    async def _sized(self, request: web.Request, size: int) -> web.Response:
        return web.Response(body=PNG + bytes(size - len(PNG)))

    async def _cut(self, request: web.Request, bytes_: int) -> web.StreamResponse:
        """A body shorter than was said, and then the line is cut."""
        return await self._raw(request, b"Content-Length: %d\r\n" % len(PNG), PNG[:bytes_])

    async def _more(self, request: web.Request, bytes_: int) -> web.StreamResponse:
        """A body longer than was said."""
        return await self._raw(request, b"Content-Length: %d\r\n" % len(PNG), PNG + bytes(bytes_))

    async def _chunks(self, request: web.Request, bytes_: int) -> web.StreamResponse:
        """Chunks without the last one."""
        return await self._raw(request, b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n" % (bytes_, PNG[:bytes_]))

    async def _nonsense(self, request: web.Request, _: int) -> web.StreamResponse:
        assert request.transport
        request.transport.write(b"220 mail.example.org ESMTP\r\n")
        return await self._reset(request, 1)

    async def _raw(self, request: web.Request, headers: bytes, body: bytes) -> web.StreamResponse:
        assert request.transport
        request.transport.write(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body)  # type: ignore[attr-defined]
        request.transport.close()
        return await self._reset(request, 1)

    async def _reset(self, request: web.Request, gently: int) -> web.StreamResponse:
        if request.transport and not gently:
            request.transport.abort()
        await asyncio.sleep(0.05)
        return web.Response()

    async def _stalled(self, request: web.Request, bytes_: int) -> web.StreamResponse:
        """Some of the body, and then nothing."""
        response = web.StreamResponse(headers={"Content-Length": str(len(PNG))})
        await response.prepare(request)
        await response.write(PNG[:bytes_])
        await self.over.wait()
        return response

    async def _pieces(self, request: web.Request, each: int) -> web.StreamResponse:
        """All of the body, bit by bit, without its length."""
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(PNG), each):
            await response.write(PNG[start : start + each])
            await asyncio.sleep(0.005)
        return response

    async def _endless(self, request: web.Request, picture: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PNG if picture else BODIES["html"])
        for _ in range(2000):
            await response.write(bytes(50_000))
            self.sent += 50_000
        return response

    async def _large(self, request: web.Request, size: int) -> web.StreamResponse:
        """Says that it is large, and gives only its beginning."""
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        await response.write(PNG)
        await self.over.wait()
        return response


@asynccontextmanager
async def faulty_cdn() -> AsyncIterator[FaultyCdn]:
    """Run a `FaultyCdn`."""
    cdn = FaultyCdn()
    app = web.Application()
    app.router.add_get("/{path:.*}", cdn.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cdn.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cdn
    finally:
        cdn.over.set()
        await runner.cleanup()
