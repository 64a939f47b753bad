"""Past decisions: why one was made, and how often moderators agreed."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence

import discord
from discord import app_commands

from bot.actions.discord_calls import as_sentence
from bot.actions.review import PARTICIPLES
from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.commands.rights import require_moderator_of
from bot.operation import exports
from bot.rules.policy import Action
from bot.services import Services
from bot.storage.tables import Decision, decisions

needs_moderator = app_commands.checks.has_permissions(manage_messages=True)
MAX_DECISIONS = 20_000
"""Decisions in one report."""
MAX_SHOWN = 5
"""Pictures of one message that /why explains; more do not fit into an answer."""
DONE = {
    Action.LOG: "logged",
    Action.FLAG: "flagged",
    Action.SPOILER: "reposted behind a spoiler",
    Action.DELETE: "deleted",
    Action.TIMEOUT: "deleted, author timed out",
}


def explain(decision: Decision) -> str:
    """One picture's verdict, the rule that matched, what was done, and what a moderator decided."""
    if decision.origin == "moderator":
        reason = "an earlier decision by a moderator"
    elif decision.threshold is None:
        reason = "no rule matched"
    else:
        reason = f"threshold {decision.threshold:.3f}"
    detail = f" ({decision.detail})" if decision.detail else ""
    lines = [
        f"<t:{decision.created_at}:f> **{decision.verdict}** ({decision.origin}): "
        f"{decision.label} {decision.score:.3f}, {reason}",
        f"rule: {Action(decision.action).name.lower()} · done: {DONE[Action(decision.done)]}{detail}",
    ]
    if decision.scores:
        lines.append(", ".join(f"{label} {score:.3f}" for label, score in decision.scores.items()))
    if decision.moderator_id:
        participle = PARTICIPLES.get(decision.state, decision.state)
        lines.append(as_sentence(f"{participle} by <@{decision.moderator_id}> <t:{decision.decided_at}:R>"))
    return "\n".join([*lines, f"-# {decision.model}"])


def summarise(rows: Sequence[Decision], days: int) -> str:
    """How often each verdict, action and moderator's decision occurred."""
    counts = {
        "verdicts": Counter(row.verdict for row in rows),
        "rules": Counter(Action(row.action).name.lower() for row in rows),
        "moderators": Counter(row.state.replace("_", " ") for row in rows if row.moderator_id),
    }
    lines = [f"{plural(len(rows), 'picture')} in {plural(days, 'day')}"]
    for title, counter in counts.items():
        listed = ", ".join(f"{name} {count:,}" for name, count in counter.most_common(10))
        lines.append(f"{title}: {listed or 'none'}")
    return "\n".join(lines)


class Insight(DeferringCog):
    """`/why` and `/stats`, for moderators."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="why", description="Explain the decisions on a message's pictures")
    @app_commands.describe(message="link or id of the message")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    async def why(self, interaction: Interaction, message: str) -> None:
        # A link ends with the message's id, after those of the server and the channel.
        numbers = re.findall(r"\d{1,20}", message)
        if not numbers or int(numbers[-1]) >= 2**63:  # larger numbers do not fit the column
            await answer(interaction, "That is not a message: paste its link or its id.")
            return
        guild = guild_of(interaction)
        rows = await self._services.store.decisions(
            decisions.c.message_id == int(numbers[-1]), decisions.c.guild_id == guild.id
        )
        if rows:
            await require_moderator_of(interaction, guild, rows[0].channel_id)
        await answer(interaction, "\n\n".join(map(explain, rows[:MAX_SHOWN])) or "No record of that message.")

    @app_commands.command(name="stats", description="Count verdicts, and how often moderators agreed with them")
    @app_commands.describe(days="number of past days", export="attach all decisions as a CSV file")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_messages=True)
    @needs_moderator
    async def stats(
        self, interaction: Interaction, days: app_commands.Range[int, 1, 365] = 30, export: bool = False
    ) -> None:
        guild = guild_of(interaction)
        store, judge = self._services.store, self._services.judge
        since = store.now() - days * 86400
        rows = await store.decisions(
            decisions.c.guild_id == guild.id, decisions.c.created_at >= since, limit=MAX_DECISIONS
        )
        # In worker threads: with many decisions this takes long enough to hold heartbeats up.
        text = await judge.run_in_thread(summarise, rows, days)
        if precisions := await judge.run_in_thread(exports.threshold_precisions, rows):
            text += f"\n```\n{exports.as_table(precisions)}\n```"
        files = []
        if export:
            data = await judge.run_in_thread(exports.as_csv, rows)
            files = [discord.File(io.BytesIO(data.encode()), "decisions.csv")]
        await answer(interaction, text, files=files)
