"""Checks on demand: the pictures of one message, or a channel's history."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.discord_calls import missing_permissions
from bot.actions.execution import allowed_action
from bot.actions.moderation import Moderation
from bot.commands.answering import Interaction, answer, guild_of, plural
from bot.commands.rights import require_moderator
from bot.pictures.examining import Finding
from bot.pictures.references import references
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, merge_outcomes
from bot.services import Services

MAX_MESSAGES = 1000
"""Messages of one scan."""
SCAN_SECONDS = 13 * 60
"""A scan ends after this: Discord takes edits of an answer for 15 minutes."""
PROGRESS_EVERY = 25
"""Messages between two updates of a scan's progress."""
PLANS = {
    Action.FLAG: "post to the mod-log for",
    Action.SPOILER: "repost behind a spoiler",
    Action.DELETE: "delete",
    Action.TIMEOUT: "delete, and time out the author of,",
}
MAX_PICTURES = 10
"""Pictures of one message that "Check this picture" describes."""


def describe_finding(finding: Finding) -> str:
    """One picture's verdict, and the action that the server's rules ask for."""
    name = finding.reference.name or finding.reference.kind
    if finding.verdict in UNJUDGED:
        return f"`{name}`: **{finding.verdict}**, {UNJUDGED[finding.verdict]} ({finding.detail})"
    scores = ", ".join(f"{label} {score:.3f}" for label, score in finding.scores.items()) or finding.detail
    return f"`{name}`: **{finding.verdict}** ({scores}) · rule: {finding.outcome.action.name.lower()}"


@dataclass
class ScanProgress:
    """What a scan has seen so far."""

    messages: int = 0
    pictures: int = 0
    """New ones; pictures that a model has judged before are not checked again."""
    matches: int = 0
    """New pictures that matched a rule."""
    actions: Counter[Action] = field(default_factory=Counter)
    """What the rules and the mode ask for, by message."""

    def add(self, findings: list[Finding], action: Action) -> None:
        """Count a message."""
        self.messages += 1
        self.pictures += len(findings)
        self.matches += sum(finding.outcome.action > Action.LOG for finding in findings)
        if action is not Action.LOG:
            self.actions[action] += 1

    def __str__(self) -> str:
        checked = f"Checked {plural(self.messages, 'message')}"
        if not self.pictures:
            return f"{checked}: no new pictures."
        return f"{checked}: {plural(self.pictures, 'new picture')}, {self.matches:,} matched a rule."

    def describe_plan(self) -> str:
        """What acting would do."""
        planned = [f"{PLANS[action]} {plural(count, 'message')}" for action, count in sorted(self.actions.items())]
        if not planned:
            return "Nothing to do."
        return f"Nothing was done. `/scan act:True` would {', '.join(planned)}."


class Checking(commands.Cog):
    """`/scan` and the context menu "Check this picture", for moderators."""

    def __init__(self, bot: commands.AutoShardedBot, services: Services, moderation: Moderation) -> None:
        self._bot = bot
        self._services = services
        self._moderation = moderation
        self._scanning: set[int] = set()
        self._menu = app_commands.ContextMenu(name="Check this picture", callback=self.check)
        self._menu.guild_only = True
        self._menu.default_permissions = discord.Permissions(manage_messages=True)

    async def cog_load(self) -> None:
        """Register the context menu: discord.py finds only a cog's slash commands by itself."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Remove the context menu."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    async def check(self, interaction: Interaction, message: discord.Message) -> None:
        """Show the model's verdict on a message's pictures, without acting on the message."""
        guild = guild_of(interaction)
        require_moderator(interaction, _guild_channel(guild, message.channel))
        await interaction.response.defer(ephemeral=True)
        policy = await self._moderation.local_policy(message)
        findings = [
            await self._services.examiner.examine(picture, guild.id, policy)
            for picture in references(message)[:MAX_PICTURES]
        ]
        lines = [describe_finding(finding) for finding in findings if finding is not None]
        footer = f"-# {self._services.serving.version}"
        await answer(interaction, "\n".join([*lines, footer]) if lines else "No pictures in this message.")

    @app_commands.command(name="scan", description="Check the pictures in a channel's history")
    @app_commands.describe(
        channel="channel to check",
        messages=f"number of messages, newest first (up to {MAX_MESSAGES})",
        act="do what the rules say; otherwise the scan only looks",
    )
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    async def scan(
        self,
        interaction: Interaction,
        channel: discord.TextChannel,
        messages: app_commands.Range[int, 1, MAX_MESSAGES] = 100,
        act: bool = False,
    ) -> None:
        guild = guild_of(interaction)
        require_moderator(interaction, _guild_channel(guild, channel))
        visible = guild.get_channel(channel.id)
        if not isinstance(visible, discord.TextChannel):
            await answer(interaction, "The bot cannot see that channel.")
            return
        if missing := missing_permissions(visible, view_channel=True, read_message_history=True):
            await answer(interaction, f"Scan not started ({missing}).")
            return
        if guild.id in self._scanning:
            await answer(interaction, "Scan not started: another scan of this server is still running.")
            return
        self._scanning.add(guild.id)
        try:
            await interaction.response.defer(ephemeral=True)
            await interaction.edit_original_response(content=await self._scan(interaction, visible, messages, act))
        finally:
            self._scanning.discard(guild.id)

    async def _scan(self, interaction: Interaction, channel: discord.TextChannel, limit: int, act: bool) -> str:
        """Check one message after the other, so that new messages take precedence in the queue."""
        deadline = time.monotonic() + SCAN_SECONDS
        policy = await self._services.store.policy(channel.guild.id)
        progress = ScanProgress()
        async for message in channel.history(limit=limit):
            if act:
                findings = await self._moderation.check(message, again=True, unjudged=True)
            else:
                findings = await self._moderation.preview(message)
            progress.add(findings, _planned_action(findings, channel.guild, policy))
            # At a stop, answer while the connection is still open.
            if self._moderation.stopping or time.monotonic() > deadline:
                return f"Stopped early. {_report(progress, act)}"
            if progress.messages % PROGRESS_EVERY == 0:
                await interaction.edit_original_response(content=f"Checked {progress.messages} of {limit} messages ...")
        return _report(progress, act)


def _planned_action(findings: list[Finding], guild: discord.Guild, policy: GuildPolicy) -> Action:
    outcome = merge_outcomes(finding.outcome for finding in findings)
    return allowed_action(outcome.action, guild, policy)


def _report(progress: ScanProgress, act: bool) -> str:
    return str(progress) if act else f"{progress} {progress.describe_plan()}"


def _guild_channel(guild: discord.Guild, channel: object) -> discord.abc.GuildChannel | discord.Thread:
    """A channel with the permissions that the bot knows of, rather than as Discord describes it in a command.

    Raises:
        app_commands.CheckFailure: if the bot does not see it.
    """
    visible = guild.get_channel_or_thread(getattr(channel, "id", 0))
    if visible is None and isinstance(channel, discord.Thread):
        return channel  # one that is archived
    if visible is None:
        raise app_commands.CheckFailure("The bot cannot see that channel.")
    return visible
