"""Slash commands and buttons of the tests' Discord server, and what the bot answers to them."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from discord_api import Api
from discord_http import RefusedError, missing, read, reply
from discord_state import EPHEMERAL, LOADING, Json, Window, rest, stamp

CHANNEL = 7  # type of an option


@dataclass
class Interaction:
    """One interaction and its answer."""

    id: int
    token: str
    type: int
    channel: int
    user: int
    message: int | None
    sent: float
    callback: Json | None = None  # what the bot answered first: {"type": ..., "data": ...}
    original: int | None = None  # the message that is @original
    followups: list[int] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


def walk(components: list[Json]) -> Any:
    """Every component, those within others too."""
    for component in components:
        yield component
        inner = [*component.get("components", []), *filter(None, [component.get("accessory")])]
        yield from walk([*inner, *filter(None, [component.get("component")])])


class Interactions(Api):
    """What users press, and the answers."""

    patience = 600.0  # how many seconds the bot has for its first answer; Discord's 3 s may be short on a busy machine

    def __init__(self, *, keep: bool = True, window: int = 1000, **api: Any) -> None:
        super().__init__(keep=keep, window=window, **api)
        self.interactions: dict[str, Interaction] = Window(None if keep else window)

    def routes(self) -> dict[str, Any]:
        webhook = "/webhooks/{app}/{token}"
        return super().routes() | {
            "POST /interactions/{interaction}/{token}/callback": self._callback,
            f"POST {webhook}": self._followup,
            f"PATCH {webhook}/messages/{{which}}": self._patch_answer,
        }

    # What users do.

    def _interact(self, kind: int, data: Json, user: int, channel: int, message: int | None = None) -> Interaction:
        interaction = Interaction(
            self.snowflake(), secrets.token_hex(32), kind, channel, user, message, time.monotonic()
        )
        self.interactions[interaction.token] = interaction
        place = self.channels[channel]
        payload = {"id": str(interaction.id), "token": interaction.token, "type": kind, "data": data, "version": 1,
                   "application_id": str(self.bot), "channel_id": str(channel), "channel": place, "locale": "en-US",
                   "entitlements": [], "attachment_size_limit": self.limit, "context": 0 if "guild_id" in place else 1,
                   "authorizing_integration_owners": {"0": place.get("guild_id", "0")}}  # fmt: skip
        if "guild_id" in place:
            guild = self.guilds[int(place["guild_id"])]
            payload |= {"guild_id": guild["id"], "guild_locale": "en-US",
                        "guild": {"id": guild["id"], "locale": "en-US", "features": guild["features"]},
                        "member": guild["members"][user] | {"permissions": self.permissions_of(guild, user)},
                        "app_permissions": self.permissions_of(guild, self.bot)}  # fmt: skip
        else:
            payload |= {"user": self.users[user], "app_permissions": str((1 << 53) - 1)}
        if message is not None:
            payload["message"] = rest(self.messages[message])
        self.emit("INTERACTION_CREATE", payload)
        return interaction

    async def click(self, message: int, custom_id: str, user: int) -> Interaction:
        """A user presses a button of a message."""
        entry = self.messages[message]
        component = next((part for part in walk(entry["components"]) if part.get("custom_id") == custom_id), None)
        if component is None or component.get("disabled"):
            raise LookupError(f"nothing to press: {custom_id}")
        data = {"custom_id": custom_id, "component_type": component["type"], "id": component.get("id", 1)}
        return self._interact(3, data, user, int(entry["channel_id"]), message)

    async def submit(self, shown: Interaction, values: dict[str, str]) -> Interaction:
        """A user sends the form that the bot showed them."""
        form = shown.callback["data"]
        for part in walk(form["components"]):
            if part.get("custom_id") in values:
                part["value"] = values[part["custom_id"]]
        data = {"custom_id": form["custom_id"], "components": form["components"]}
        return self._interact(5, data, shown.user, shown.channel, shown.message)

    async def slash(self, name: str, options: Json | None, user: int, channel: int) -> Interaction:
        """A user sends a command that the bot synced: "name", or "group name"."""
        command, *path = name.split()
        guild = int(self.channels[channel].get("guild_id") or 0)
        found = self._command(command, 1, guild)
        data = {key: found[key] for key in ("id", "name", "type", "guild_id") if key in found}
        resolved: Json = {}
        inner = data
        for part in path:
            found = next(option for option in found["options"] if option["name"] == part and option["type"] in (1, 2))
            inner["options"] = [{"name": part, "type": found["type"]}]
            inner = inner["options"][0]
        known = {option["name"]: option for option in found.get("options", [])}
        lost = [name for name, option in known.items() if option.get("required") and name not in (options or {})]
        if lost:
            raise LookupError(f"the command asks for {lost}")
        inner["options"] = [self._option(known[key], value, resolved) for key, value in (options or {}).items()]
        return self._interact(2, data | ({"resolved": resolved} if resolved else {}), user, channel)

    def _command(self, name: str, kind: int, guild: int) -> Json:
        for command in [*self.commands.get(guild, []), *self.commands.get(None, [])]:
            if (command["name"], command["type"]) == (name, kind):
                return command
        raise LookupError(f"no such command was synced: {name}")

    def _option(self, option: Json, value: Any, resolved: Json) -> Json:
        if option["type"] == CHANNEL:
            channel = self.channels[value] | {"permissions": str((1 << 53) - 1)}
            resolved.setdefault("channels", {})[str(value)] = channel
            value = str(value)
        return {"name": option["name"], "type": option["type"], "value": value}

    async def answer(self, interaction: Interaction, seconds: float = 1800.0) -> Json:
        """Wait for the bot's answer: the message it wrote or edited, else its bare callback (a silent nod)."""
        async with asyncio.timeout(seconds):
            await interaction.done.wait()
        message = interaction.followups[-1] if interaction.followups else interaction.original
        shows = message in self.messages and interaction.callback["type"] != 6
        return self.messages[message] if shows else interaction.callback

    # What the bot answers.

    def _known(self, request: web.Request, kind: str) -> Interaction:
        found = self.interactions.get(request.match_info["token"])
        if found is None or (kind == "webhook" and found.callback is None):
            raise missing(kind)
        return found

    def _answer(self, interaction: Interaction, payload: Json, files: Any, flags: int) -> Json:
        owner = self.channels[interaction.channel].get("guild_id", "0")
        meta = {"id": str(interaction.id), "type": interaction.type, "user": self.users[interaction.user],
                "authorizing_integration_owners": {"0": owner}}  # fmt: skip
        return self.write(interaction.channel, payload, files, flags=flags, application_id=str(self.bot),
                          webhook_id=str(self.bot), interaction_metadata=meta)  # fmt: skip

    async def _callback(self, request: web.Request) -> web.Response:
        interaction = self._known(request, "interaction")
        late = time.monotonic() - interaction.sent > self.patience
        if late or str(interaction.id) != request.match_info["interaction"]:
            raise missing("interaction")
        if interaction.callback:
            raise RefusedError(400, 40060, "Interaction has already been acknowledged.")
        body, files = await read(request)
        kind, data = body["type"], body.get("data") or {}
        message = None
        if kind in (4, 5):
            flags = (data.get("flags") or 0) | (LOADING if kind == 5 else 0)
            message = self._answer(interaction, data, files, flags)
            interaction.original = int(message["id"])
        elif kind in (6, 7):
            interaction.original = interaction.message
            if kind == 7:
                message = self.rewrite(self.messages[interaction.message], data, files, edited_timestamp=stamp())
        interaction.callback = {"type": kind, "data": data}
        if kind != 5:
            interaction.done.set()
        if request.query.get("with_response") not in ("1", "true"):
            return reply()
        about = {"id": str(interaction.id), "type": interaction.type, "response_message_loading": kind == 5,
                 "response_message_ephemeral": bool(message and message["flags"] & EPHEMERAL)}  # fmt: skip
        if message:
            about["response_message_id"] = message["id"]
            return reply({"interaction": about, "resource": {"type": kind, "message": rest(message)}})
        return reply({"interaction": about})

    async def _followup(self, request: web.Request) -> web.Response:
        interaction = self._known(request, "webhook")
        payload, files = await read(request)
        first = self.messages.get(interaction.original or 0)
        if first and first["flags"] & LOADING:  # the first message after "thinking" takes its place
            message = self.rewrite(first, payload, files, flags=first["flags"] & ~LOADING)
        else:
            message = self._answer(interaction, payload, files, payload.get("flags") or 0)
            interaction.followups.append(int(message["id"]))
        interaction.done.set()
        return reply(rest(message))

    def _which(self, request: web.Request) -> tuple[Interaction, Json]:
        interaction, which = self._known(request, "webhook"), request.match_info["which"]
        id = interaction.original if which == "@original" else int(which)
        if id not in self.messages or id not in (interaction.original, *interaction.followups):
            raise missing("message")
        return interaction, self.messages[id]

    async def _patch_answer(self, request: web.Request) -> web.Response:
        interaction, message = self._which(request)
        payload, files = await read(request)
        changed = self.rewrite(message, payload, files, flags=message["flags"] & ~LOADING, edited_timestamp=stamp())
        interaction.done.set()
        return reply(rest(changed))
