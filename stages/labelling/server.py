"""The page's server, on loopback: only who has the address with its token may see pictures or answer.

Another site that the browser has open cannot: it does not know the token, and a request by a name of its own for this
machine (DNS rebinding) is refused, as is one that it sends in the page's place.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from aiohttp import web
from aiohttp.typedefs import Handler

from stages.catalogue.corrections import UNDECIDED
from stages.labelling import answers, pictures
from stages.labelling.answers import ConflictError
from stages.labelling.pictures import Pictures
from stages.labelling.queue import Item, Queue
from stages.workspace.errors import MLpyError, PictureError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Under which a browser on this machine asks for it; the port may be another one, that a tunnel listens on."""
TEMPLATES = Path(__file__).with_name("templates")
MAX_BODY = 4096
"""Bytes of an answer."""
MAX_NOTE = 500
"""Characters of a note."""
AHEAD = 3
"""Pictures that are sent at a time, for the page to load before they are shown."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCOPES: dict[str, Callable[[Item, str | None], bool]] = {
    "likely": lambda item, answer: answer is None and item.is_likely,
    "all": lambda item, answer: answer is None,
    "skipped": lambda item, answer: answer == UNDECIDED,
}
"""Which pictures are asked for."""


class Labelling:
    """The web application for a queue, whose answers go into a file."""

    def __init__(self, queue: Queue, file: Path, shown: Pictures, who: str, token: str = "") -> None:
        """`who` answers; without a `token` a random one is made."""
        self.queue, self.file, self.pictures, self.who = queue, file, shown, who
        self.token = token or secrets.token_urlsafe(24)

    def application(self) -> web.Application:
        """The web application: the page is at `/TOKEN/`."""
        application = web.Application(middlewares=[self.guard], client_max_size=MAX_BODY)
        application.router.add_get("/{token}/", self.page)
        application.router.add_get("/{token}/items", self.items)
        application.router.add_get("/{token}/pictures/{image_id:[0-9]{1,19}}", self.picture)
        application.router.add_post("/{token}/answers", self.answer)
        return application

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what the page itself did not send."""
        try:
            self._check(request)
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=error.text)
        except MLpyError as error:
            status = 409 if isinstance(error, ConflictError) else 500
            response = web.json_response({"error": str(error)}, status=status)
        response.headers.update(HEADERS)
        return response

    def _check(self, request: web.Request) -> None:
        try:
            name = urlsplit(f"//{request.headers.get('Host', '')}").hostname
        except ValueError:
            name = None
        if name not in NAMES:
            raise web.HTTPForbidden(text="This server answers to 127.0.0.1 and localhost alone.\n")
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        own = f"http://{request.headers['Host']}"
        if origin not in (None, own) or site not in ("none", "same-origin"):
            raise web.HTTPForbidden(text="Another site sent this request.\n")
        if not hmac.compare_digest(request.path.split("/")[1].encode(), self.token.encode()):
            raise web.HTTPNotFound(text="Not found: use the whole address that the command printed.\n")

    async def page(self, request: web.Request) -> web.Response:
        """The page."""
        nonce = secrets.token_urlsafe(16)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
        )
        text = environment.get_template("page.html.j2").render(
            nonce=nonce,
            policy=self.queue.policy,
            rules=self.queue.rules,
            file=self.file,
            undecided=UNDECIDED,
            max_note=MAX_NOTE,
        )
        headers = {"Content-Security-Policy": POLICY.format(nonce)}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def items(self, request: web.Request) -> web.Response:
        """The next pictures of a scope, and how far the work is."""
        scope = request.query.get("scope", "")
        if scope not in SCOPES:
            raise web.HTTPBadRequest(text=f"scope must be one of {', '.join(SCOPES)}\n")
        return web.json_response(await asyncio.to_thread(self._state, scope))

    def _state(self, scope: str) -> dict[str, Any]:
        items = self.queue.items.values()
        given = answers.given(self.file, self.queue.policy, items)
        asked = [item for item in items if SCOPES[scope](item, given.get(item.image_id))]
        likely = [item for item in items if item.is_likely]
        kinds = Counter(
            "skipped" if label == UNDECIDED else "right" if label == self.queue.items[image_id].label else "wrong"
            for image_id, label in given.items()
        )
        return {
            "items": [self._shown(item, given.get(item.image_id)) for item in asked[:AHEAD]],
            "left": len(asked),
            "likely": {"done": sum(item.image_id in given for item in likely), "all": len(likely)},
            "scored": {"done": len(given), "all": len(self.queue.items)},
            "answers": {kind: kinds[kind] for kind in ("right", "wrong", "skipped")},
        }

    def _shown(self, item: Item, answer: str | None) -> dict[str, Any]:
        """A picture as the page needs it."""
        host = urlsplit(item.url).hostname or ""
        return {
            "id": item.image_id,
            "label": item.label,
            "alternatives": item.alternatives,
            "scores": item.scores,
            "likely": item.is_likely,
            "tags": item.tags,
            "artist": item.artist,
            "url": item.url if item.url.startswith(("https://", "http://")) and not host.endswith("localhost") else "",
            "answer": answer,
        }

    async def picture(self, request: web.Request) -> web.Response:
        """A picture of the queue."""
        image_id = int(request.match_info["image_id"])
        try:
            if image_id not in self.queue.items:
                raise KeyError(image_id)
            body = await asyncio.to_thread(self.pictures.encoded, image_id)
        except KeyError:
            raise web.HTTPNotFound(text="no such picture\n") from None
        except PictureError as error:
            raise web.HTTPUnprocessableEntity(text=f"{error}\n") from error
        return web.Response(body=body, content_type=pictures.TYPE)

    async def answer(self, request: web.Request) -> web.Response:
        """Put an answer into the file, or take one back."""
        item, label, before, note = await self._answer(request)
        why = note or f"looked at; score {item.scores.get(item.label, 1 - item.doubt):.3f} for {item.label}"
        await asyncio.to_thread(answers.put, self.file, self.queue.policy, item, label, before, self.who, why)
        return web.json_response({"answer": label})

    async def _answer(self, request: web.Request) -> tuple[Item, str | None, str | None, str]:
        """What was sent: the picture, its label, the answer before it, and a note."""
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="send JSON\n")
        try:
            sent = await request.json()
            image_id, label, before, note = (sent[name] for name in ("id", "label", "before", "note"))
            item = self.queue.items[image_id]
            allowed = (None, UNDECIDED, item.label, *item.alternatives)
            if type(image_id) is not int or label not in allowed or not isinstance(before, str | None):
                raise ValueError(label)
            note = " ".join(note.split())[:MAX_NOTE]
        except (
            json.JSONDecodeError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ):
            raise web.HTTPBadRequest(text="not an answer to a picture of the queue\n") from None
        return item, label, before, note


async def serve(labelling: Labelling, port: int, ready: Callable[[str], None]) -> None:
    """Serve until the task is cancelled.

    Args:
        labelling: the application.
        port: 0 for a free one.
        ready: gets the page's address.

    Raises:
        OSError: if the port is in use.
    """
    runner = web.AppRunner(labelling.application(), access_log=None)  # a log of requests would hold the token
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        ready(f"http://{HOST}:{runner.addresses[0][1]}/{labelling.token}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
