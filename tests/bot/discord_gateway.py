"""The gateway of the tests' Discord server: websockets, sessions, and what a session missed."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web
from discord_state import DiscordState, Json
from waiting import until

GUILDS, MEMBERS, PRESENCES, CONTENT = 1 << 0, 1 << 1, 1 << 8, 1 << 15
NEEDS = (  # the events of a name, and the intent they need in a guild and in a direct message
    (r"GUILD_MEMBER_", MEMBERS, 0),
    (r"GUILD_BAN_|GUILD_AUDIT_", 1 << 2, 0),
    (r"GUILD_|CHANNEL_|THREAD_", GUILDS, 0),
    (r"MESSAGE_REACTION_", 1 << 10, 1 << 13),
    (r"MESSAGE_", 1 << 9, 1 << 12),
    (r"TYPING_", 1 << 11, 1 << 14),
)


def packer(kind: str | None) -> Callable[[bytes], bytes] | None:
    """The compression that a client's query asks for; without it, or without the means: text, which it reads too."""
    if kind == "zlib-stream":
        stream = zlib.compressobj(1)
        return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    if kind == "zstd-stream":
        try:
            import zstandard
        except ImportError:
            return None
        zstd = zstandard.ZstdCompressor().compressobj()
        return lambda data: zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return None


class Connection:
    """One open websocket. A client that reads slowly never holds up who posts: the payloads wait in a queue."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.ws = web.WebSocketResponse(timeout=1, max_msg_size=4096, compress=False)
        self.pack = packer(request.query.get("compress"))
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.session: Session | None = None
        self.writer: asyncio.Task | None = None

    def put(self, op: int, data: Any = None) -> None:
        self.queue.put_nowait(json.dumps({"op": op, "d": data, "s": None, "t": None}))

    async def write(self) -> None:
        while True:
            text = await self.queue.get()
            try:
                await (self.ws.send_bytes(self.pack(text.encode())) if self.pack else self.ws.send_str(text))
            except ConnectionError:
                return

    async def close(self, code: int | None) -> None:
        """With a code, a closing handshake; with None, the line goes dead."""
        if self.session and self.session.connection is self:
            self.session.connection = None
        if self.writer:
            self.writer.cancel()
        if code is None:
            self.cut()
        else:
            await self.ws.close(code=code)

    def cut(self) -> None:
        if self.request.transport:
            self.request.transport.abort()


@dataclass
class Session:
    """What a client may come back to."""

    id: str
    shard: int
    shards: int
    intents: int
    log: deque[tuple[int, str]]
    seq: int = 0
    connection: Connection | None = None

    def add(self, event: str, body: str, *, keep: bool = True) -> None:
        self.seq += 1
        text = f'{{"op":0,"t":"{event}","s":{self.seq},"d":{body}}}'
        if keep:
            self.log.append((self.seq, text))
        if self.connection:
            self.connection.queue.put_nowait(text)


class Gateway(DiscordState):
    """The websockets' side."""

    def __init__(self, *, heartbeat=41.25, privileged=True, memory=10_000, **world: Any) -> None:
        self.heartbeat, self.privileged, self.memory = heartbeat, privileged, memory
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.gateway = self.resume_gateway = ""
        self.identifies = self.resumes = self.invalid = self.silent = 0
        self._away_until = 0.0
        super().__init__(**world)

    # Telling the clients.

    def emit(self, event: str, data: Json) -> None:
        self.counts[event] += 1
        guild = int(data.get("guild_id") or 0)
        need = next((pair for pattern, *pair in NEEDS if re.match(pattern, event)), (0, 0))[0 if guild else 1]
        about_bot = event.startswith("GUILD_MEMBER_") and data["user"]["id"] == str(self.bot)
        bodies: dict[bool, str] = {}
        for session in self.sessions.values():
            if (guild >> 22) % session.shards != session.shard or (need & ~session.intents and not about_bot):
                continue
            blank = event in ("MESSAGE_CREATE", "MESSAGE_UPDATE") and not self._may_read(session, data)
            if blank not in bodies:
                hidden = {"content": "", "attachments": [], "embeds": [], "components": []} if blank else {}
                shown = {key: value for key, value in data.items() if not (blank and key == "message_snapshots")}
                bodies[blank] = json.dumps(shown | hidden)
            session.add(event, bodies[blank])

    def _may_read(self, session: Session, message: Json) -> bool:
        mentioned = str(self.bot) in [user["id"] for user in message["mentions"]]
        own = message["author"]["id"] == str(self.bot)
        return bool(session.intents & CONTENT) or own or mentioned or "guild_id" not in message

    # Trouble.

    async def drop(self, code: int | None = 4000, *, away: float = 0.0, forget: bool = False) -> None:
        """Close every websocket (None: cut the line without a word), and greet none again for `away` seconds.

        With `forget` the sessions end too, so that a RESUME is refused.
        """
        self._away_until = time.monotonic() + away
        lost = list(self.connections)
        for connection in lost:
            if connection.session:
                connection.session.connection = None
        if forget:
            self.sessions.clear()
        await asyncio.gather(*(connection.close(code) for connection in lost))

    def come_back(self) -> None:
        """End the time that `drop` is away."""
        self._away_until = 0.0

    # Hearing them.

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        connection = Connection(request)
        await connection.ws.prepare(request)
        await until(lambda: time.monotonic() >= self._away_until)
        self.connections.add(connection)
        connection.writer = asyncio.create_task(connection.write())
        connection.put(10, {"heartbeat_interval": int(self.heartbeat * 1000), "_trace": ["tests"]})
        code = None
        try:
            code = await self._hear(connection)
        except TimeoutError:
            self.silent += 1
            code = 4009
        finally:
            self.connections.discard(connection)
            session = connection.session
            if session and session.connection is connection:
                session.connection = None
                if code is None and connection.ws.close_code in (1000, 1001):  # the client said goodbye
                    self.sessions.pop(session.id, None)
            if connection.ws.closed:
                connection.writer.cancel()
            else:
                await connection.close(code or 1001)
        return connection.ws

    async def _hear(self, connection: Connection) -> int | None:
        """Answer one client until it leaves; returns the code to close with, if it is ours to close."""
        while True:
            message = await connection.ws.receive(timeout=2 * self.heartbeat)
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return None
            try:
                payload = json.loads(message.data)
                op, data = payload["op"], payload.get("d")
            except (ValueError, KeyError, TypeError):
                return 4002
            session = connection.session
            code = None
            if op == 1:
                connection.put(11)
            elif op in (2, 6):
                code = 4005 if session else (self._identify if op == 2 else self._resume)(connection, data)
            elif session is None:
                code = 4003
            else:
                code = 4001
            if code:
                return code

    def _identify(self, connection: Connection, data: Json) -> int | None:
        self.identifies += 1
        shard, shards = data.get("shard") or (0, 1)
        if data.get("token") != self.token:
            return 4004
        if not 0 <= shard < shards:
            return 4010
        if not isinstance(data.get("intents"), int):
            return 4013
        if not self.privileged and data["intents"] & (MEMBERS | PRESENCES | CONTENT):
            return 4014
        session = Session(secrets.token_hex(16), shard, shards, data["intents"], deque(maxlen=self.memory))
        stale = [s.id for s in self.sessions.values() if (s.shard, s.connection) == (shard, None)]
        for id in stale:
            del self.sessions[id]
        self.sessions[session.id] = connection.session = session
        session.connection = connection
        mine = [guild for id, guild in self.guilds.items() if (id >> 22) % shards == shard]
        ready = {"v": 10, "user": self.users[self.bot], "session_id": session.id, "shard": [shard, shards],
                 "resume_gateway_url": self.resume_gateway, "session_type": "normal", "private_channels": [],
                 "guilds": [{"id": guild["id"], "unavailable": True} for guild in mine],
                 "application": {"id": str(self.bot), "flags": 1 << 19 | 1 << 15}, "_trace": ["tests"]}  # fmt: skip
        session.add("READY", json.dumps(ready))
        if session.intents & GUILDS:
            for guild in mine:
                session.add("GUILD_CREATE", json.dumps(self.guild_create(guild)))
        return None

    def _resume(self, connection: Connection, data: Json) -> int | None:
        session = self.sessions.get(data.get("session_id"))
        if data.get("token") != self.token:
            return 4004
        known = session and (session.log[0][0] if session.log else 1) <= data["seq"] + 1
        if session is None or not known:  # gone, or so long ago that what it missed is gone
            self.invalid += 1
            connection.put(9, False)
            return None
        if data["seq"] > session.seq:
            return 4007
        self.resumes += 1
        if session.connection:  # the client gave up on a line that we still held
            session.connection.cut()
        session.connection, connection.session = connection, session
        for seq, text in session.log:
            if seq > data["seq"]:
                connection.queue.put_nowait(text)
        session.add("RESUMED", '{"_trace":["tests"]}', keep=False)
        return None
