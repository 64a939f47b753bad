"""Mod-log entries: one per message with a picture that matched a rule, with the review buttons."""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, retry
from bot.actions.execution import ActionResult
from bot.actions.picking import list_pictures
from bot.actions.review import AUTHOR_FIELD, review_view
from bot.actions.telling import modlog_channel, modlog_problem
from bot.pictures.examining import Finding
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, RuleOutcome

MAX_THUMBNAILS = 4
"""Thumbnails in one entry."""
RESULTS = {
    Action.LOG: "No action taken.",
    Action.FLAG: "No action taken: waiting for review.",
    Action.SPOILER: "Reposted behind a spoiler.",
    Action.DELETE: "Deleted.",
    Action.TIMEOUT: "Deleted. Author timed out.",
}


async def post(
    message: discord.Message,
    findings: Sequence[Finding],
    outcome: RuleOutcome,
    result: ActionResult,
    policy: GuildPolicy,
) -> str:
    """Post an entry to the server's mod-log. Returns why that failed, or nothing."""
    guild = message.guild
    assert guild is not None  # noqa: S101 - direct messages are skipped
    channel = modlog_channel(guild, policy)
    problem = modlog_problem(guild, policy)
    if channel is None or problem:
        return problem
    role = guild.get_role(policy.moderators or 0) if outcome.ping else None
    pictures = list_pictures((finding.reference.key, describe_plainly(finding)) for finding in findings)
    nonce = secrets.randbits(64)  # Discord posts a nonce once, so that a retry cannot double the entry

    async def send() -> None:
        embed, files = build_entry(message, findings, outcome, result)  # per try: a file can be sent only once
        await channel.send(
            role.mention if role else None,
            embed=embed,
            files=files,
            view=review_view(message.channel.id, message.id, pictures),
            # Nothing else in the entry may ping anyone.
            allowed_mentions=discord.AllowedMentions(everyone=False, users=False, roles=[role] if role else False),
            nonce=nonce,
        )

    try:
        await retry(send)
    except DISCORD_ERRORS as error:
        return describe_error(error)
    return ""


def build_entry(
    message: discord.Message, findings: Sequence[Finding], outcome: RuleOutcome, result: ActionResult
) -> tuple[discord.Embed, list[discord.File]]:
    """The embed and the blurred thumbnails of an entry: which pictures, why, and what was done."""
    embed = discord.Embed(
        title=f"{outcome.label} {outcome.score:.2f}",
        description="\n".join(_numbered(list(map(_describe, findings))))[:2000],
        colour=discord.Colour.orange(),
        timestamp=message.created_at,
    )
    embed.add_field(name=AUTHOR_FIELD, value=f"{message.author.mention} ({message.author.id})")
    embed.add_field(name="Message", value=message.jump_url)
    embed.add_field(name="Action", value=describe_result(result)[:1000], inline=False)
    embed.set_footer(text=findings[0].version)
    thumbnails = [finding.thumbnail for finding in findings if finding.thumbnail][:MAX_THUMBNAILS]
    files = [discord.File(io.BytesIO(data), f"SPOILER_blurred-{place}.jpg") for place, data in enumerate(thumbnails)]
    return embed, files


def _numbered(lines: list[str]) -> list[str]:
    """Lines with the numbers that the menu below the entry uses; a single one needs none."""
    return [f"{number}. {line}" for number, line in enumerate(lines, 1)] if len(lines) > 1 else lines


def describe_plainly(finding: Finding) -> str:
    """One picture's line in the menu, which shows no Markdown."""
    what = finding.verdict if finding.verdict in UNJUDGED else f"{finding.outcome.label} {finding.outcome.score:.2f}"
    return f"{finding.reference.kind}, {what}"


def _describe(finding: Finding) -> str:
    """One picture's line: its kind, the label that decided, and why."""
    kind, outcome = finding.reference.kind, finding.outcome
    if finding.verdict in UNJUDGED:
        return f"{kind}: **{finding.verdict}**, {UNJUDGED[finding.verdict]} ({finding.detail})"
    if finding.origin == "moderator":
        return f"{kind}: **{outcome.label}**, {finding.detail}"
    line = f"{kind}: **{outcome.label}** {outcome.score:.3f}"
    return line if outcome.threshold is None else f"{line}, threshold {outcome.threshold:.3f}"


def describe_result(result: ActionResult) -> str:
    """What was done and why no more, in sentences."""
    return f"{RESULTS[result.action]} {as_sentence(result.detail)}".strip()
