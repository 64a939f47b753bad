"""The real bot in a simulated Discord, with a real database, a real model, and a CDN over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
from aiohttp import web
from simcord import interactions
from simcord.actors import MemberActor
from simcord.backend import serializers
from simcord.backend.models.channel import Overwrite
from simcord.builders import ChannelHandle, GuildHandle
from simcord.enums import OverwriteType
from simcord.env import Env

from bot.client import PERMISSIONS, Bot
from bot.model.release import Release, Repository
from bot.model.serving import LoadedModel, Serving
from bot.pictures.fetching import FetchCaps, Fetcher
from bot.pictures.judging import Judge, JudgeCaps
from bot.rules.policy import GuildPolicy, Mode
from bot.services import Services
from bot.settings import Settings
from bot.storage.store import BotStore
from bot.storage.tables import Decision

MD5 = "0" * 32


class SimulatedCdn:
    """Serves what the simulated Discord stores, over loopback."""

    def __init__(self) -> None:
        self.base = ""
        self.files: dict[str, bytes] = {}
        self.faults: list[tuple[int, dict[str, str]]] = []
        """Answers given before anything else: status and headers."""
        self.asked: list[str] = []
        self.released = asyncio.Event()
        """Files are given only while it is set."""
        self.released.set()
        self.still = b""
        """What the media proxy makes of anything that is asked for as a WebP."""
        self.blobs: Callable[[str], bytes | None] = lambda _: None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        await self.released.wait()
        if self.faults:
            status, headers = self.faults.pop(0)
            return web.Response(status=status, headers=headers)
        if self.still and request.query.get("format") == "webp":
            return web.Response(body=self.still)
        data = self.files.get(request.path) or self.blobs(f"{self.base}{request.path}")
        return web.Response(body=data) if data is not None else web.Response(status=404)

    def add(self, path: str, data: bytes) -> str:
        """Its URL."""
        self.files[path] = data
        return self.base + path


class SimulatedServer:
    """A server with a moderator, a member and channels, and the bot in it."""

    def __init__(self, cdn: SimulatedCdn, model: Path, folder: Path) -> None:
        self.cdn, self.folder = cdn, folder
        self.settings = Settings(
            token="simulated",
            database=f"sqlite:///{folder / 'bot.sqlite'}",
            model="workspace",
            origins=frozenset({cdn.base}),
            judge=JudgeCaps(threads=1, max_bytes=2_000_000, max_pixels=1_000_000),
            fetch=FetchCaps(max_bytes=2_000_000, seconds=120.0, pause=0.01),
        )
        release = Release("moderator@v1.0.0", "1" * 40, MD5, model, model.with_suffix(".json"))
        self.serving = Serving(Repository(), "workspace", LoadedModel.load(release))
        self.now = 1_700_000_000.0
        self.env: Env
        self.bot: Bot
        self._parts = AsyncExitStack()

    async def parts(self, **changes: Any) -> Bot:
        """A new bot, with the same database and model."""
        self.settings = replace(self.settings, **changes)
        judge = Judge(self.settings.judge)
        self._parts.callback(judge.close)
        store = await self._parts.enter_async_context(BotStore(self.settings.database, clock=lambda: self.now))
        fetcher = await self._parts.enter_async_context(Fetcher(self.settings.origins, self.settings.fetch))
        self.bot = Bot(Services.assemble(self.settings, self.serving, store, fetcher, judge))
        return self.bot

    async def restart(self, **changes: Any) -> None:
        """As a new process on the same database."""
        await self.close()
        await self.env.restart_bot(await self.parts(**changes))

    async def close(self) -> None:
        await self._parts.aclose()

    def furnish(self, env: Env) -> None:
        self.env = env
        self.cdn.blobs = env.backend.cdn.get
        self.guild: GuildHandle = env.create_guild()
        self.permit(PERMISSIONS)
        self.mods = self.guild.create_role(
            "Moderators", mentionable=True, permissions=discord.Permissions(manage_messages=True, moderate_members=True)
        )
        managers = self.guild.create_role("Managers", permissions=discord.Permissions(manage_guild=True))
        self.general: ChannelHandle = self.guild.create_text_channel("general")
        self.modlog: ChannelHandle = self.guild.create_text_channel("mod-log")
        self.alice: MemberActor = self.guild.add_member(env.create_user("alice"))
        self.mod: MemberActor = self.guild.add_member(env.create_user("mod"), roles=[self.mods])
        self.other_mod: MemberActor = self.guild.add_member(env.create_user("other"), roles=[self.mods])
        self.manager: MemberActor = self.guild.add_member(env.create_user("manager"), roles=[self.mods, managers])

    def permit(self, permissions: discord.Permissions, denied: int = 0) -> None:
        """Give the bot's role these permissions, and deny it others in #general."""
        backend, guild = self.env.backend, self.env.backend.guilds[self.guild.id]
        mine = next(role for role in guild.roles.values() if role.managed)
        backend.edit_role(guild.id, mine.id, {"permissions": permissions.value})
        if denied:
            backend.set_overwrite(self.general.id, Overwrite(mine.id, OverwriteType.ROLE, deny=denied))

    def hide(self, channel: ChannelHandle, *besides: int) -> None:
        """Hide a channel from all but moderators and the bot. `besides`: roles that see it, too."""
        backend, guild = self.env.backend, self.env.backend.guilds[self.guild.id]
        mine = next(role for role in guild.roles.values() if role.managed)
        view = discord.Permissions(view_channel=True).value
        for role_id in (mine.id, self.mods.id, *besides):
            backend.set_overwrite(channel.id, Overwrite(role_id, OverwriteType.ROLE, allow=view))
        backend.set_overwrite(channel.id, Overwrite(guild.id, OverwriteType.ROLE, deny=view))

    def forbid(self, **permissions: bool) -> None:
        """Take permissions from the bot, @everyone's too."""
        denied = discord.Permissions(**permissions).value
        self.permit(discord.Permissions(PERMISSIONS.value & ~denied), denied)

    async def policy(self, mode: Mode, **more: Any) -> None:
        """Set the server's policy as its commands would."""
        policy = GuildPolicy(mode=mode, modlog=self.modlog.id, moderators=self.mods.id, **more)
        await self.bot.services.store.set_policy(self.guild.id, policy)

    async def post(self, *pictures: bytes, content: str = "", by: MemberActor | None = None) -> discord.Message:
        """A member posts pictures."""
        files = [(f"picture-{place}.png", data) for place, data in enumerate(pictures)]
        return await (by or self.alice).send(self.general, content, attachments=files)

    async def decisions(self) -> list[Decision]:
        """All that the database has, newest first."""
        return await self.bot.services.store.decisions()

    def posts(self, channel: ChannelHandle) -> list[discord.Message]:
        """What is in a channel now, oldest first."""
        return sorted(channel.history(), key=lambda message: message.id)

    def entries(self) -> list[discord.Message]:
        """What is in the mod-log."""
        return self.posts(self.modlog)

    def press(self, actor: MemberActor, message: discord.Message, choice: str) -> None:
        """Click a button of an entry, without waiting for what comes of it."""
        backend = self.env.backend
        stored = backend.get_message(message.channel.id, message.id)
        buttons = [each for row in stored.components for each in row["components"]]
        custom_id = next(each["custom_id"] for each in buttons if f":{choice}:" in each["custom_id"])
        record, payload = interactions.base_payload(
            backend,
            type=discord.InteractionType.component.value,
            channel_id=message.channel.id,
            guild_id=self.guild.id,
            user_id=actor.id,
            data={"custom_id": custom_id, "component_type": discord.ComponentType.button.value},
        )
        payload["message"] = dict(serializers.message_payload(backend, stored))
        record.source_message_id = stored.id
        backend.emit("INTERACTION_CREATE", payload)
