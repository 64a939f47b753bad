"""The API's routes of the tests' Discord server: the bot itself, channels, messages, guilds and members."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from discord_http import Http, RefusedError, missing, read, reply
from discord_state import EPOCH, LOADING, Json, rest, stamp

SENDABLE = ("content", "embeds", "components", "sticker_ids", "poll")
MANAGE_MESSAGES, MODERATE_MEMBERS, KICK_MEMBERS, BAN_MEMBERS = 1 << 13, 1 << 40, 1 << 1, 1 << 2
EMBED = {"title": 256, "description": 4096, "fields": 25}


def invalid(where: str) -> RefusedError:
    return RefusedError(400, 50035, f"Invalid Form Body: {where}")


def check(payload: Json) -> None:
    """What Discord would not take."""
    if len(payload.get("content") or "") > 2000:
        raise invalid("content")
    total = 0
    for embed in payload.get("embeds") or []:
        if any(len(embed.get(key) or "") > most for key, most in EMBED.items()):
            raise invalid("embeds")
        for part in embed.get("fields") or []:
            if not 0 < len(part["name"]) <= 256 or not 0 < len(part["value"]) <= 1024:
                raise invalid("embeds.fields")
        parts = [embed, *(embed.get("fields") or []), embed.get("footer") or {}, embed.get("author") or {}]
        total += sum(
            len(part.get(key) or "") for part in parts for key in ("title", "description", "name", "value", "text")
        )
    if total > 6000:
        raise invalid("embeds")


class Api(Http):
    """The routes."""

    limit = 10 << 20  # the largest upload, in bytes

    def __init__(self, *, shards: int = 1, **http: Any) -> None:
        super().__init__(**http)
        self.shards = shards
        self.dms: dict[int, int] = {}  # by user

    def routes(self) -> dict[str, Any]:
        channel, guild, app = "/channels/{channel}", "/guilds/{guild}", "/applications/{app}"
        one, member = channel + "/messages/{message}", guild + "/members/{user}"
        return {
            "GET /users/@me": self._value(lambda _: self.users[self.bot]),
            "POST /users/@me/channels": self._open_dm,
            "GET /applications/@me": self._value(lambda _: self._application()),
            "GET /oauth2/applications/@me": self._value(lambda _: self._application()),
            "GET /gateway": self._value(lambda _: {"url": self.gateway}),
            "GET /gateway/bot": self._value(lambda _: self._gateway_bot()),
            f"GET {app}/commands": self._value(lambda _: self.commands.get(None, [])),
            f"PUT {app}/commands": self._put_commands,
            f"GET {channel}/messages": self._history,
            f"GET {one}": self._value(lambda at: rest(self.messages[at["message"]])),
            f"POST {channel}/messages": self._post_message,
            f"DELETE {one}": self._value(self._delete_message),
            f"POST {channel}/messages/bulk-delete": self._bulk_delete,
            f"PATCH {one}": self._edit_message,
            f"GET {member}": self._value(lambda at: self.guilds[at["guild"]]["members"][at["user"]]),
            f"PATCH {member}": self._edit_member,
            f"DELETE {member}": self._value(lambda at: self._remove_member(at, KICK_MEMBERS)),
            f"PUT {guild}/bans/{{user}}": self._ban,
        }

    def place(self, request: web.Request) -> dict[str, int]:
        """The ids in a request's path, all of which there are."""
        at = {key: int(value) for key, value in request.match_info.items() if value.isdigit()}
        for key, known in (("channel", self.channels), ("guild", self.guilds), ("message", self.messages)):
            if key in at and at[key] not in known:
                raise missing(key)
        if "message" in at and self.messages[at["message"]]["channel_id"] != str(at.get("channel")):
            raise missing("message")
        if "user" in at and at["user"] not in self.users:
            raise missing("user")
        banned = request.match_info.route.resource.canonical.endswith("/bans/{user}")  # who has left may be, too
        if not banned and "user" in at and "guild" in at and at["user"] not in self.guilds[at["guild"]]["members"]:
            raise missing("member")
        return at

    def _value(self, make: Callable[[dict[str, int]], Any]) -> Any:
        async def handler(request: web.Request) -> web.Response:
            return reply(make(self.place(request)))

        return handler

    def demand(self, guild: int, permission: int) -> None:
        """The bot may not do this without a permission of its roles (`permissions=` of the server)."""
        if not int(self.permissions_of(self.guilds[guild], self.bot)) & permission:
            raise RefusedError(403, 50013)

    # The bot, its application and its commands.

    def _application(self) -> Json:
        return {"id": str(self.bot), "name": "mlpy", "icon": None, "description": "", "summary": "", "bot_public": True,
                "bot_require_code_grant": False, "verify_key": "0" * 64, "flags": 1 << 19 | 1 << 15, "team": None,
                "owner": self.users[self.owner]}  # fmt: skip

    def _gateway_bot(self) -> Json:
        start = {"total": 1000, "remaining": 1000 - self.identifies, "reset_after": 86_400_000, "max_concurrency": 1}
        return {"url": self.gateway, "shards": self.shards, "session_start_limit": start}

    async def _put_commands(self, request: web.Request) -> web.Response:
        guild = self.place(request).get("guild")
        own = {"application_id": str(self.bot)} | ({"guild_id": str(guild)} if guild else {})
        common = {
            "type": 1,
            "description": "",
            "default_member_permissions": None,
            "dm_permission": True,
            "nsfw": False,
        }
        self.commands[guild] = [
            common | command | own | {"id": str(self.snowflake()), "version": str(self.snowflake())}
            for command in (await read(request))[0]
        ]
        return reply(self.commands[guild])

    async def _open_dm(self, request: web.Request) -> web.Response:
        """The channel for direct messages with a user, always the same."""
        user = int((await read(request))[0]["recipient_id"])
        if user not in self.users:
            raise missing("user")
        if user not in self.dms:
            id = self.dms[user] = self.snowflake()
            self.channels[id] = {"id": str(id), "type": 1, "recipients": [self.users[user]], "last_message_id": None}
        return reply(self.channels[self.dms[user]])

    # Messages.

    def _attach(self, channel: int, payload: Json, files: list[tuple[str, bytes]], kept: list[Json]) -> Json:
        """The parts of a payload that go into a message, the files on the CDN and the embeds pointing at them."""
        check(payload)
        if any(len(data) > self.limit for _, data in files):
            raise RefusedError(413, 40005, "Request entity too large")
        named = {str(entry.get("id")): entry for entry in payload.get("attachments") or []}
        if "attachments" in payload:
            kept = [attachment for attachment in kept if attachment["id"] in named]
        for index, (name, data) in enumerate(files):
            more = {k: v for k, v in named.get(str(index), {}).items() if k in ("description", "title")}
            kept = [*kept, self.store(channel, data, name, **more)]
        parts = {key: payload[key] for key in ("content", "embeds", "components", "tts", "poll") if key in payload}
        if payload.get("embeds"):
            text = json.dumps([{"type": "rich"} | embed for embed in payload["embeds"]])
            for attachment in kept:
                text = text.replace(f'"attachment://{attachment["filename"]}"', json.dumps(attachment["url"]))
            parts["embeds"] = json.loads(text)
        for key, nothing in (("content", ""), ("embeds", []), ("components", [])):
            if key in parts and parts[key] is None:
                parts[key] = nothing
        return parts | {"attachments": kept}

    def write(self, channel: int, payload: Json, files: list[tuple[str, bytes]], **more: Any) -> Json:
        """A new message of the bot's."""
        if not (files or any(payload.get(key) for key in SENDABLE) or more.get("flags", 0) & LOADING):
            raise RefusedError(400, 50006, "Cannot send an empty message")
        parts = self._attach(channel, payload, files, [])
        reference = payload.get("message_reference")
        if reference:
            found = self.messages.get(int(reference["message_id"]))
            if found is None and reference.get("fail_if_not_exists", True):
                raise invalid("message_reference: Unknown message")
            named = {key: str(reference[key]) for key in ("message_id", "channel_id", "guild_id") if key in reference}
            more |= {"type": 19, "message_reference": named, "referenced_message": found and rest(found)}
        flags = payload.get("flags") or 0
        content = parts.pop("content", "")
        more = {"flags": flags, "allowed_mentions": payload.get("allowed_mentions")} | more
        return self.message(channel, self.bot, content, **parts, **more)

    def rewrite(self, message: Json, payload: Json, files: list[tuple[str, bytes]], **more: Any) -> Json:
        """The same message of the bot's, edited."""
        parts = self._attach(int(message["channel_id"]), payload, files, message["attachments"])
        return self.change(message, **parts, **more)

    async def _post_message(self, request: web.Request) -> web.Response:
        channel = self.place(request)["channel"]
        payload, files = await read(request)
        nonce = (channel, str(payload.get("nonce")))
        if payload.get("enforce_nonce") and self.nonces.get(nonce) in self.messages:
            return reply(rest(self.messages[self.nonces[nonce]]))  # the same request again
        more = {"nonce": payload["nonce"]} if payload.get("nonce") else {}
        made = self.write(channel, payload, files, **more)
        self.nonces[nonce] = int(made["id"])
        return reply(rest(made))

    async def _history(self, request: web.Request) -> web.Response:
        """Newest first, as Discord gives them: the oldest ones after an id, or the newest before one."""
        channel, query = self.place(request)["channel"], request.query
        limit, after, before = int(query.get("limit", 50)), int(query.get("after", 0)), int(query.get("before", 2**63))
        found = [
            message
            for id, message in sorted(self.messages.items())
            if int(message["channel_id"]) == channel and after < id < before
        ]
        found = found[:limit] if "after" in query else found[-limit:]
        return reply([rest(message) for message in reversed(found)])

    def _delete_message(self, at: dict[str, int]) -> None:
        message = self.messages[at["message"]]
        if message["author"]["id"] != str(self.bot) and "guild_id" in message:
            self.demand(int(message["guild_id"]), MANAGE_MESSAGES)
        self.remove(at["message"])

    async def _bulk_delete(self, request: web.Request) -> web.Response:
        """Of 2 to 100 messages at once, none of over two weeks; those that are gone are passed over."""
        channel = self.place(request)["channel"]
        ids = [int(id) for id in (await request.json())["messages"]]
        if not 2 <= len(ids) <= 100 or len(set(ids)) < len(ids):
            raise invalid("messages")
        if any((id >> 22) + EPOCH < (time.time() - 14 * 86_400) * 1000 for id in ids):
            raise RefusedError(400, 50034, "You can only bulk delete messages that are under 14 days old.")
        self.demand(int(self.channels[channel]["guild_id"]), MANAGE_MESSAGES)
        found = [id for id in ids if int(self.messages.get(id, {}).get("channel_id", 0)) == channel]
        for id in found:
            self.deleted[id] = self.messages.pop(id)
        place = {"channel_id": str(channel), "guild_id": self.channels[channel]["guild_id"]}
        self.emit("MESSAGE_DELETE_BULK", {"ids": [str(id) for id in found]} | place)
        return reply()

    async def _edit_message(self, request: web.Request) -> web.Response:
        message = self.messages[self.place(request)["message"]]
        if message["author"]["id"] != str(self.bot):
            raise RefusedError(403, 50005, "Cannot edit a message authored by another user")
        payload, files = await read(request)
        return reply(rest(self.rewrite(message, payload, files, edited_timestamp=stamp())))

    async def _edit_member(self, request: web.Request) -> web.Response:
        """A time-out, or its end."""
        at = self.place(request)
        self.demand(at["guild"], MODERATE_MEMBERS)
        member = self.guilds[at["guild"]]["members"][at["user"]]
        member["communication_disabled_until"] = (await request.json())["communication_disabled_until"]
        self.emit("GUILD_MEMBER_UPDATE", member | {"guild_id": str(at["guild"])})
        return reply(member)

    def _remove_member(self, at: dict[str, int], permission: int) -> None:
        self.demand(at["guild"], permission)
        members = self.guilds[at["guild"]]["members"]
        if members.pop(at["user"], None):
            self.emit("GUILD_MEMBER_REMOVE", {"guild_id": str(at["guild"]), "user": self.users[at["user"]]})

    async def _ban(self, request: web.Request) -> web.Response:
        at = self.place(request)
        self._remove_member(at, BAN_MEMBERS)
        self.guilds[at["guild"]].setdefault("bans", {})[at["user"]] = request.headers.get("X-Audit-Log-Reason")
        return reply()
