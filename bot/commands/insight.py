"""What was decided before, and how well."""

from __future__ import annotations

import io
import re
from collections import Counter

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import Interaction, answer, guild_of
from bot.operation import exports
from bot.rules.policy import Action
from bot.services import Services
from bot.storage.tables import Decision, decisions

moderator = app_commands.checks.has_permissions(manage_messages=True)
MOST = 20_000
"""Decisions of a report."""


def explained(decision: Decision) -> str:
    """Why a picture was dealt with as it was."""
    threshold = "no rule was met" if decision.threshold is None else f"threshold {decision.threshold:.3f}"
    if decision.origin == "moderator":
        threshold = "by a moderator's earlier decision"
    wanted, done = Action(decision.action).name.lower(), Action(decision.done).name.lower()
    lines = [
        f"<t:{decision.created_at}:f> **{decision.verdict}** ({decision.origin}): "
        f"{decision.label} {decision.score:.3f}, {threshold}",
        f"by the rules: {wanted}; done: {done}" + (f" ({decision.detail})" if decision.detail else ""),
    ]
    if decision.scores:
        lines.append(", ".join(f"{label} {score:.3f}" for label, score in decision.scores.items()))
    if decision.moderator_id:
        lines.append(f"{decision.state.replace('_', ' ')} by <@{decision.moderator_id}>, <t:{decision.decided_at}:R>")
    return "\n".join([*lines, f"-# {decision.model}"])


class Insight(commands.Cog):
    """For moderators."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="why", description="Why a message's pictures were dealt with as they were")
    @app_commands.describe(message="link or id of the message")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    @moderator
    async def why(self, interaction: Interaction, message: str) -> None:
        numbers = re.findall(r"\d{1,20}", message)
        if not numbers or int(numbers[-1]) >= 2**63:
            await answer(interaction, "Give the message's link or id.")
            return
        found = await self._services.store.decisions(
            decisions.c.message_id == int(numbers[-1]), decisions.c.guild_id == guild_of(interaction).id
        )
        text = "\n\n".join(map(explained, found[:5]))
        await answer(interaction, text[:2000] or "Nothing is kept of that message.")

    @app_commands.command(name="stats", description="What was found, and how often moderators agreed")
    @app_commands.describe(days="of the last so many days", export="attach every decision as a CSV file")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    @moderator
    async def stats(
        self, interaction: Interaction, days: app_commands.Range[int, 1, 365] = 30, export: bool = False
    ) -> None:
        guild = guild_of(interaction)
        await interaction.response.defer(ephemeral=True)
        since = self._services.store.now() - days * 86400
        found = await self._services.store.decisions(
            decisions.c.guild_id == guild.id, decisions.c.created_at >= since, limit=MOST
        )
        rows = await self._services.judge.thread(exports.precision, found)
        lines = [f"{len(found)} pictures in {days} days"]
        for title, counts in (
            ("verdicts", Counter(each.verdict for each in found)),
            ("by the rules", Counter(Action(each.action).name.lower() for each in found)),
            ("moderators", Counter(each.state for each in found if each.moderator_id)),
        ):
            lines.append(f"{title}: " + (", ".join(f"{name} {n}" for name, n in counts.most_common(10)) or "none"))
        text = "\n".join(lines) + (f"\n```\n{exports.table(rows)}\n```" if rows else "")
        files = []
        if export:
            data = await self._services.judge.thread(exports.as_csv, found)
            files = [discord.File(io.BytesIO(data.encode()), "decisions.csv")]
        await answer(interaction, text[:2000], files=files)
