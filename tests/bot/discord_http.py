"""How the tests' Discord server answers HTTP: tokens, limits, the CDN, and the faults in all of it."""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import re
import time
from typing import Any

from aiohttp import web
from discord_gateway import Gateway
from discord_state import Json, signature

API = "/api/v10"
OPEN = re.compile(r"/gateway$|/interactions/|/webhooks/")  # no token in the header
MISSING = {"channel": 10003, "guild": 10004, "member": 10007, "message": 10008, "user": 10013, "webhook": 10015,
           "interaction": 10062}  # fmt: skip
MESSAGES = {400: "400: Bad Request", 401: "401: Unauthorized", 403: "Missing Permissions", 404: "404: Not Found",
            429: "You are being rate limited."}  # fmt: skip


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: int = 0, message: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message or MESSAGES.get(status, f"{status}: Internal Server Error")}


def missing(kind: str) -> RefusedError:
    return RefusedError(404, MISSING[kind], f"Unknown {kind.title()}")


def reply(data: Any = None, status: int = 200, **headers: str) -> web.Response:
    """JSON with the exact type that the client looks for; without data, 204."""
    if data is None:
        return web.Response(status=204)
    return web.Response(
        status=status, body=json.dumps(data).encode(), headers={"Content-Type": "application/json"} | headers
    )


async def read(request: web.Request) -> tuple[Json, list[tuple[str, bytes]]]:
    """The payload and the files of a request, JSON or multipart."""
    if not request.content_type.startswith("multipart/"):
        return (await request.json() if request.can_read_body else {}), []
    payload: Json = {}
    files: dict[int, tuple[str, bytes]] = {}
    async for part in await request.multipart():
        if part.name == "payload_json":
            payload = json.loads(await part.text())
        elif number := re.fullmatch(r"files\[(\d+)\]", part.name or ""):
            files[int(number[1])] = part.filename, bytes(await part.read())
    return payload, [files[index] for index in sorted(files)]


LIMITS = {
    "DELETE /channels/{channel}/messages/{message}": (5, 1.0),
    "POST /channels/{channel}/messages/bulk-delete": (1, 1.0),
    "POST /channels/{channel}/messages": (5, 5.0),
    "PATCH /channels/{channel}/messages/{message}": (5, 5.0),
    "PATCH /guilds/{guild}/members/{user}": (10, 10.0),
}
"""Requests in so many seconds that a route takes for each channel or guild. Discord documents none of these: they are
what libraries and bots' developers measured."""
GLOBAL = (50, 1.0)
"""Requests in so many seconds in all, but for answers to interactions; this one is documented."""


class Bucket:
    """A limit that begins anew after its time."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.count, self.ends = 0, 0.0

    def take(self) -> float:
        """0 if a request is within the limit, else the seconds to wait."""
        now = time.monotonic()
        if now >= self.ends:
            self.count, self.ends = 0, now + self.seconds
        if self.count >= self.limit:
            return self.ends - now
        self.count += 1
        return 0.0


class Http(Gateway):
    """What every request goes through."""

    def __init__(self, *, limited: bool = False, **gateway: Any) -> None:
        super().__init__(**gateway)
        self.limited = limited  # whether it has Discord's rate limits
        self.buckets: dict[tuple[str, str], Bucket] = {}
        self.unknown: list[tuple[str, str]] = []
        self.errors: list[Exception] = []  # what this server could not answer for its own sake
        self.leaks: list[str] = []  # requests to the CDN that brought the token along
        self.faults: list[Json] = []

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._around], client_max_size=64 << 20)
        app.router.add_get("/gateway", self.websocket)
        app.router.add_get("/resume", self.websocket)
        for line, handler in self.routes().items():
            method, path = line.split()
            app.router.add_route(method, API + path, handler)
        app.router.add_route("*", API + "/{rest:.*}", self._no_route)
        app.router.add_get("/{path:.*}", self._no_route)  # the CDN, which `_around` serves
        return app

    def routes(self) -> dict[str, Any]:
        return {}

    # Faults.

    def fail(self, method: str, path: str, status: int | None = 500, *, times: float = 1, **how: Any) -> Json:
        """Let the next `times` requests of this method ("*": any) and path (a glob, without /api/v10) go wrong.

        With a status: its `body` (a dict, or text as of a proxy), `headers`, `retry_after` and `global_` (429), and
        `after` if the request is carried out all the same. Without (the default of what follows): after a `delay`
        (seconds) or an event (`hold`); with the line cut (`reset`).
        """
        if {"delay", "hold", "reset"} & how.keys():
            status = None if status == 500 else status
        fault = {"method": method, "path": path, "status": status, "times": times, **how}
        self.faults.append(fault)
        return fault

    def _fault(self, method: str, path: str) -> Json:
        for fault in self.faults:
            if fault["method"] in (method, "*") and fnmatch.fnmatchcase(path, fault["path"]) and fault["times"] > 0:
                fault["times"] -= 1
                return fault
        return {}

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in ("/gateway", "/resume"):
            return await handler(request)
        method, path = request.method, request.path.removeprefix(API)
        fault = self._fault(method, path)
        await asyncio.sleep(fault.get("delay", 0))
        if "hold" in fault:
            await fault["hold"].wait()
        status = fault.get("status")
        try:
            locked = path != request.path and not OPEN.match(path)
            if locked and request.headers.get("Authorization") != f"Bot {self.token}":
                raise RefusedError(401)
            response = web.Response(status=444)  # what is noted of a request that got no answer
            if self.limited and locked and (late := self._over_limit(request)):
                fault = late
                status = 429
            if fault.get("after") or (status is None and "reset" not in fault):
                response = await (self._cdn(request) if path == request.path else handler(request))
            if status is not None:
                response = self._failed(fault)
        except RefusedError as error:
            response = reply(error.body, error.status)
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # what this server does not understand
            self.errors.append(error)
            response = reply({"code": 50035, "message": f"Invalid Form Body: {error!r}"}, 400)
        if path != request.path and response.status != 429:
            response.headers.update(self._limits(request))
        self.requests.append((method, path, response.status))
        self.counts[f"{method} {request.match_info.route.resource.canonical.removeprefix(API)} {response.status}"] += 1
        if fault.get("reset") and request.transport:
            request.transport.abort()
        return response

    def _failed(self, fault: Json) -> web.Response:
        body = {"code": 50013 if fault["status"] == 403 else 0, "message": MESSAGES.get(fault["status"], "failed")}
        headers = dict(fault.get("headers", {}))
        if fault["status"] == 429:
            wait, wide = fault.get("retry_after", 0.05), bool(fault.get("global_"))
            body = {"message": MESSAGES[429], "retry_after": wait, "global": wide}
            headers = {"Via": "1.1 google", "Retry-After": f"{wait:.0f}", "X-RateLimit-Scope": "user"} | headers
            if wide:
                headers |= {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
        body = body if fault.get("body") is None else fault["body"]
        if isinstance(body, str | bytes):  # what a proxy in front says
            text = body if isinstance(body, bytes) else body.encode()
            return web.Response(status=fault["status"], body=text, headers={"Content-Type": "text/html"} | headers)
        return reply(body, fault["status"], **headers)

    def _over_limit(self, request: web.Request) -> Json:
        """The 429 that a request gets, or nothing."""
        wide = self.buckets.setdefault(("", ""), Bucket(*GLOBAL))
        if wait := wide.take():
            return {"status": 429, "retry_after": wait, "global_": True}
        bucket = self._bucket(request)
        wait = bucket.take() if bucket else 0.0
        return {"status": 429, "retry_after": wait} if wait else {}

    def _bucket(self, request: web.Request) -> Bucket | None:
        route = f"{request.method} {request.match_info.route.resource.canonical.removeprefix(API)}"
        if not self.limited or route not in LIMITS:
            return None
        place = request.match_info.get("channel") or request.match_info["guild"]
        return self.buckets.setdefault((route, place), Bucket(*LIMITS[route]))

    def _limits(self, request: web.Request) -> dict[str, str]:
        route = f"{request.method} {request.match_info.route.resource.canonical}"
        if bucket := self._bucket(request):
            left = max(0.0, bucket.ends - time.monotonic())
            return {
                "X-RateLimit-Limit": str(bucket.limit), "X-RateLimit-Remaining": str(bucket.limit - bucket.count),
                "X-RateLimit-Reset-After": f"{left:.3f}", "X-RateLimit-Reset": f"{time.time() + left:.3f}",
                "X-RateLimit-Bucket": hashlib.sha256(route.encode()).hexdigest()[:32],
            }  # fmt: skip
        return {
            "X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "999", "X-RateLimit-Reset-After": "1.000",
            "X-RateLimit-Reset": f"{time.time() + 1:.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(route.encode()).hexdigest()[:32],
        }  # fmt: skip

    async def _no_route(self, request: web.Request) -> web.Response:
        self.unknown.append((request.method, request.path.removeprefix(API)))
        raise RefusedError(404)

    # The CDN.

    async def _cdn(self, request: web.Request) -> web.Response:
        path, query = request.path, request.query
        if "Authorization" in request.headers:
            self.leaks.append(path)
        data, kind = self.uploads.get(path) or (None, "")
        signed = signature(path, query.get("ex", ""), query.get("is", "")) == query.get("hm")
        if data is None or not signed or int(query["ex"], 16) <= time.time():
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=data, content_type=kind)
