"""What the tests' Discord server knows: guilds, members, channels and messages, as plain dicts in Discord's shape."""

from __future__ import annotations

import hashlib
import hmac
import io
import mimetypes
import re
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any

from PIL import Image

EPOCH = 1_420_070_400_000  # the first millisecond of 2015, where Discord's ids begin
ADMINISTRATOR = 1 << 3
EVERYONE = 1 << 6 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 31  # see, write, embed, attach, commands
EPHEMERAL, LOADING = 1 << 6, 1 << 7
SECRET = b"the key the picture links are signed with"

Json = dict[str, Any]


def stamp(seconds: float | None = None) -> str:
    return datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC).isoformat()


def signature(path: str, ex: str, issued: str) -> str:
    return hmac.new(SECRET, f"{path} {ex} {issued}".encode(), hashlib.sha256).hexdigest()


def rest(message: Json) -> Json:
    """A message as the HTTP API gives it: without what only the gateway adds."""
    return {key: value for key, value in message.items() if key not in ("guild_id", "member", "channel_type")}


class Window(dict):
    """A dict of the latest entries only; without a size, of all."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size = size

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        if self.size and len(self) > self.size:
            del self[next(iter(self))]


class DiscordState:
    """The state, and who hears of its changes through `emit`."""

    cdn = ""

    def __init__(self, *, guilds=1, permissions=ADMINISTRATOR, keep=True, window=1000, token="test-token", bot="mlpy"):
        self.token, self.permissions = token, permissions
        size = None if keep else window
        self.messages: dict[int, Json] = Window(size)
        self.deleted: dict[int, Json] = Window(size)
        self.uploads: dict[str, tuple[bytes, str]] = Window(size)  # attachments by path: the body and its type
        self.nonces: dict[tuple[int, str], int] = Window(1000)
        self.requests: Any = [] if keep else deque(maxlen=size)
        self.counts: Counter[str] = Counter()
        self.users: dict[int, Json] = {}
        self.guilds: dict[int, Json] = {}
        self.channels: dict[int, Json] = {}
        self.commands: dict[int | None, list[Json]] = {}  # None: the global ones
        self._last = 0
        self._born = int((time.time() - 30 * 86_400) * 1000) - EPOCH
        self.bot = self.add_user(bot, bot=True)
        self.owner = self.add_user("owner")
        self.user = self.add_user("ann")
        for _ in range(guilds):
            self.add_guild()
        self.guild = next(iter(self.guilds), None)
        self.channel = next(iter(self.channels), None)

    def emit(self, event: str, data: Json) -> None:
        """Nobody listens to a bare state."""

    def snowflake(self) -> int:
        self._last = max(self._last + 1, (int(time.time() * 1000) - EPOCH) << 22)
        return self._last

    # What a guild is made of.

    def add_user(self, name: str, *, bot: bool = False) -> int:
        id = self.snowflake()
        self.users[id] = {"id": str(id), "username": name, "discriminator": "0", "global_name": name.title(),
                          "avatar": None, "bot": bot, "public_flags": 0, "flags": 0}  # fmt: skip
        return id

    def add_guild(self, name: str = "guild", **more: Any) -> int:
        """A guild with one channel, its owner, one member and the bot. One after the other falls to the next shard."""
        id = (self._born + len(self.guilds)) << 22
        guild = {"id": str(id), "name": f"{name}-{len(self.guilds)}", "owner_id": str(self.owner), "nsfw_level": 0,
                 "features": [], "preferred_locale": "en-US", "verification_level": 0, "mfa_level": 0, "icon": None,
                 "default_message_notifications": 0, "explicit_content_filter": 0, "afk_timeout": 300,
                 "premium_tier": 0, "premium_subscription_count": 0, "system_channel_id": None, "emojis": [],
                 "stickers": [], "system_channel_flags": 0, "afk_channel_id": None, "max_members": 500_000,
                 "roles": {}, "channels": {}, "members": {}} | more  # fmt: skip
        guild["roles"][id] = self._role(id, "@everyone", EVERYONE, 0)
        self.guilds[id] = guild
        role = self.snowflake()
        guild["roles"][role] = self._role(role, "bot", self.permissions, 1, managed=True)
        for user, roles in ((self.bot, [role]), (self.owner, []), (self.user, [])):
            guild["members"][user] = self._member(user, roles)
        self._channel(guild, "general", 0)
        joined = self.guild_create(guild) | {"guild_id": str(id)}
        del joined["unavailable"]  # a guild that was away says so, a new one says nothing
        self.emit("GUILD_CREATE", joined)
        return id

    def add_member(self, guild: int, name: str) -> int:
        """A user who is in a guild."""
        user = self.add_user(name)
        self.guilds[guild]["members"][user] = self._member(user, [])
        return user

    def _role(self, id: int, name: str, permissions: int, position: int, **more: Any) -> Json:
        return {"id": str(id), "name": name, "permissions": str(permissions), "position": position, "color": 0,
                "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None}, "hoist": False,
                "managed": False, "mentionable": False, "icon": None, "flags": 0} | more  # fmt: skip

    def _member(self, user: int, roles: list[int]) -> Json:
        return {"user": self.users[user], "nick": None, "avatar": None, "roles": [str(role) for role in roles],
                "joined_at": stamp(), "premium_since": None, "deaf": False, "mute": False, "flags": 0,
                "pending": False, "communication_disabled_until": None}  # fmt: skip

    def _channel(self, guild: Json, name: str, kind: int, **more: Any) -> Json:
        id = self.snowflake()
        channel = {"id": str(id), "type": kind, "name": name, "guild_id": guild["id"], "parent_id": None,
                   "nsfw": False, "topic": None, "position": len(guild["channels"]), "rate_limit_per_user": 0,
                   "permission_overwrites": [], "last_message_id": None, "flags": 0} | more  # fmt: skip
        guild["channels"][id] = self.channels[id] = channel
        return channel

    def add_channel(self, guild: int, name: str, *, kind: int = 0, **more: Any) -> int:
        channel = self._channel(self.guilds[guild], name, kind, **more)
        self.emit("CHANNEL_CREATE", channel)
        return int(channel["id"])

    def guild_get(self, guild: Json) -> Json:
        """A guild as GET /guilds/ID gives it."""
        absent = ("channels", "members", "bans")
        return {k: v for k, v in guild.items() if k not in absent} | {"roles": list(guild["roles"].values())}

    def guild_create(self, guild: Json) -> Json:
        """A guild as the gateway gives it: of the members, the bot alone."""
        return self.guild_get(guild) | {
            "channels": list(guild["channels"].values()), "threads": [],
            "members": [guild["members"][self.bot]], "member_count": len(guild["members"]), "large": False,
            "unavailable": False, "joined_at": guild["members"][self.bot]["joined_at"], "presences": [],
            "voice_states": [], "stage_instances": [], "guild_scheduled_events": [], "soundboard_sounds": [],
        }  # fmt: skip

    def permissions_of(self, guild: Json, user: int) -> str:
        """What a member may do; overwrites of a channel are left out."""
        held = [int(guild["roles"][int(role)]["permissions"]) for role in guild["members"][user]["roles"]]
        total = int(guild["roles"][int(guild["id"])]["permissions"])
        for one in held:
            total |= one
        return str((1 << 53) - 1 if total & ADMINISTRATOR or guild["owner_id"] == str(user) else total)

    # Messages.

    def store(self, channel: int, data: bytes, name: str | None = None, **more: Any) -> Json:
        """Put a file on the CDN; returns the attachment of a message."""
        id, size = self.snowflake(), {}
        try:
            # Not of large files: hostile ones take their time even to be opened, and this process is Discord.
            with Image.open(io.BytesIO(data if len(data) < 50_000 else b"")) as image:
                size = {"width": image.width, "height": image.height}
                name = name or f"image.{image.format.lower()}"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            name = name or "file.bin"
        name = re.sub(r"[^\w.-]", "_", name)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        path = f"/attachments/{channel}/{id}/{name}"
        self.uploads[path] = data, kind
        link = self.signed(path)
        return {"id": str(id), "filename": name, "size": len(data), "url": self.cdn + link,
                "proxy_url": f"{self.cdn}/media{link}", "content_type": kind} | size | more  # fmt: skip

    def signed(self, path: str, *, seconds: float = 86_400) -> str:
        ex, issued = f"{int(time.time() + seconds):x}", f"{int(time.time()):x}"
        return f"{path}?ex={ex}&is={issued}&hm={signature(path, ex, issued)}&"

    def message(self, channel: int, author: int, content: str = "", **more: Any) -> Json:
        """A new message, kept and told."""
        place, id = self.channels[channel], self.snowflake()
        allowed = more.pop("allowed_mentions", None) or {"parse": ["users", "roles", "everyone"]}
        made = {"id": str(id), "channel_id": str(channel), "channel_type": place["type"], "type": 0, "flags": 0,
                "content": content, "author": self.users[author], "timestamp": stamp(), "edited_timestamp": None,
                "tts": False, "pinned": False, "attachments": [], "embeds": [], "components": [],
                "mention_everyone": "@everyone" in content and "everyone" in allowed.get("parse", ()),
                "mentions": self._mentioned(content, "<@!?", "users", allowed),
                "mention_roles": self._mentioned(content, "<@&", "roles", allowed)}  # fmt: skip
        guild = self.guilds.get(int(place.get("guild_id") or 0))
        if guild:
            member = guild["members"].get(author)
            made["guild_id"] = guild["id"]
            if member:
                made["member"] = {key: value for key, value in member.items() if key != "user"}
        made |= more
        place["last_message_id"] = str(id)
        self.messages[id] = made
        if not made["flags"] & EPHEMERAL:
            self.emit("MESSAGE_CREATE", made)
        return made

    def _mentioned(self, content: str, opening: str, kind: str, allowed: Json) -> list[Any]:
        ids = dict.fromkeys(re.findall(rf"{opening}(\d+)>", content))
        if kind not in allowed.get("parse", ()):
            ids = {id: None for id in ids if id in allowed.get(kind, ())}
        return list(ids) if kind == "roles" else [self.users[int(id)] for id in ids if int(id) in self.users]

    def change(self, message: Json, **more: Any) -> Json:
        message |= more
        if not message["flags"] & EPHEMERAL:
            self.emit("MESSAGE_UPDATE", message)
        return message

    def remove(self, message: int) -> Json:
        """Take a message away, as its author or the bot does."""
        gone = self.deleted[message] = self.messages.pop(message)
        place = {key: gone[key] for key in ("channel_id", "guild_id") if key in gone}
        if not gone["flags"] & EPHEMERAL:
            self.emit("MESSAGE_DELETE", {"id": str(message)} | place)
        return gone
