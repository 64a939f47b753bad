"""Looking at pictures because a moderator asks: one message, or a channel's past."""

from __future__ import annotations

import time

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.execution import lacking
from bot.actions.moderation import Moderation
from bot.commands.answering import Interaction, answer, guild_of
from bot.pictures.examining import Finding
from bot.pictures.references import references
from bot.rules.policy import UNJUDGED, Action
from bot.services import Services

moderator = app_commands.checks.has_permissions(manage_messages=True)
MOST = 1000
"""Messages of a scan."""
PATIENCE = 13 * 60
"""Seconds of a scan: Discord takes an answer for 15 minutes."""
STEP = 25
"""Messages after which a scan tells how far it is."""


def described(finding: Finding) -> str:
    """One picture's finding, for a moderator."""
    name = finding.reference.name or finding.reference.kind
    if finding.verdict in UNJUDGED:
        return f"`{name}`: **{finding.verdict}**, {UNJUDGED[finding.verdict]} ({finding.detail})"
    scores = ", ".join(f"{label} {score:.3f}" for label, score in finding.scores.items()) or finding.detail
    return f"`{name}`: **{finding.verdict}** ({scores}); by the rules: {finding.outcome.action.name.lower()}"


class Checking(commands.Cog):
    """For moderators."""

    def __init__(self, bot: commands.AutoShardedBot, services: Services, moderation: Moderation) -> None:
        self._bot = bot
        self._services = services
        self._moderation = moderation
        self._scanning: set[int] = set()
        self._menu = app_commands.ContextMenu(name="Check this picture", callback=self.check)
        self._menu.guild_only = True
        self._menu.default_permissions = discord.Permissions(manage_messages=True)
        self._menu.add_check(_may)

    async def cog_load(self) -> None:
        """Context commands are not found in a cog by themselves."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """The reverse."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    async def check(self, interaction: Interaction, message: discord.Message) -> None:
        """What the model says of a message's pictures. Nothing is done to the message."""
        guild = guild_of(interaction)
        await interaction.response.defer(ephemeral=True)
        policy = await self._services.store.policy(guild.id)
        shown = references(message)
        found = [await self._services.examiner.examine(each, guild.id, policy) for each in shown[:10]]
        lines = [described(each) for each in found if each is not None]
        version = self._services.serving.version
        await answer(interaction, ("\n".join([*lines, f"-# {version}"]) if lines else "No picture is in it.")[:2000])

    @app_commands.command(name="scan", description="Look at a channel's past messages")
    @app_commands.describe(channel="where", messages=f"how many, newest first, at most {MOST}")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    @moderator
    async def scan(
        self,
        interaction: Interaction,
        channel: discord.TextChannel,
        messages: app_commands.Range[int, 1, MOST] = 100,
    ) -> None:
        guild = guild_of(interaction)
        where = guild.get_channel(channel.id)
        if not isinstance(where, discord.TextChannel):
            await answer(interaction, "The bot does not see that channel.")
            return
        if missing := lacking(where, view_channel=True, read_message_history=True):
            await answer(interaction, f"Nothing was scanned: {missing}.")
            return
        if guild.id in self._scanning:
            await answer(interaction, "Nothing was scanned: another scan of this server is not done yet.")
            return
        self._scanning.add(guild.id)
        try:
            await interaction.response.defer(ephemeral=True)
            await interaction.edit_original_response(content=await self._scan(interaction, where, messages))
        finally:
            self._scanning.discard(guild.id)

    async def _scan(self, interaction: Interaction, channel: discord.TextChannel, most: int) -> str:
        """Look at them one after the other, so that new messages come first."""
        until = time.monotonic() + PATIENCE
        seen = pictures = found = 0
        async for message in channel.history(limit=most):
            seen += 1
            findings = await self._moderation.consider(message, again=True)
            pictures += len(findings)
            found += sum(each.outcome.action > Action.LOG for each in findings)
            if self._moderation.stopping or time.monotonic() > until:
                return f"Stopped early: {_told(seen, pictures, found)}"
            if seen % STEP == 0:
                await interaction.edit_original_response(content=f"{seen} of at most {most} messages ...")
        return _told(seen, pictures, found)


def _told(seen: int, pictures: int, found: int) -> str:
    return f"{seen} messages: {pictures} pictures not judged before, {found} of them met a rule."


async def _may(interaction: Interaction) -> bool:
    if not interaction.permissions.manage_messages:
        raise app_commands.MissingPermissions(["manage_messages"])
    return True
