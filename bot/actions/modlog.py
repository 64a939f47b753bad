"""Mod-log entries: one per message with a picture that matched a rule, with the review buttons."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, missing_permissions, retry
from bot.actions.evidence import NamedFile, as_files
from bot.actions.execution import ActionResult
from bot.actions.picking import list_pictures
from bot.actions.remembering import BLURRED
from bot.actions.review import AUTHOR_FIELD, review_view
from bot.actions.telling import ModlogChannel, modlog_channel, modlog_problem
from bot.pictures.examining import Finding
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, RuleOutcome
from bot.storage.tables import Job

MAX_THUMBNAILS = 4
"""Thumbnails in one entry."""
SEARCHED = 1000
"""Messages of the mod-log among which an entry of before a crash is looked for."""
STRIKES_FIELD = "Strikes"
"""Field of an entry about the author's deletions."""
RESULTS = {
    Action.LOG: "No action taken.",
    Action.FLAG: "No action taken: waiting for review.",
    Action.SPOILER: "Reposted behind a spoiler.",
    Action.DELETE: "Deleted.",
    Action.TIMEOUT: "Deleted. Author timed out.",
}


@dataclass(frozen=True)
class Entry:
    """What the mod-log says about a message. In the outbox until it is posted, so it holds no picture and no text."""

    action: int
    """The `Action` to take; once it is taken, what was done."""
    label: str
    score: float
    ping: bool
    version: str
    """Of the model."""
    lines: list[str]
    """A line a picture, for people."""
    pictures: list[list[str]]
    """Key and plain description of each picture, for the menu."""
    decisions: list[str]
    """Ids of the pictures' decisions."""
    detail: str = ""
    """Why less was done than the rules asked for."""
    strike: str = ""
    """What the number of the author's deletions led to: sentences."""

    @classmethod
    def of(cls, findings: Sequence[Finding], outcome: RuleOutcome, action: Action, decisions: list[str]) -> Entry:
        """The entry about findings that matched a rule, before anything is done."""
        return cls(
            action=int(action),
            label=outcome.label,
            score=outcome.score,
            ping=outcome.ping,
            version=findings[0].version,
            lines=_numbered(list(map(_describe, findings))),
            pictures=[[finding.reference.key, describe_plainly(finding)] for finding in findings],
            decisions=decisions,
        )

    def outcome(self) -> RuleOutcome:
        """What the rules asked for."""
        return RuleOutcome(Action(self.action), self.ping, self.label, self.score)

    def with_result(self, result: ActionResult) -> Entry:
        """The entry after the action."""
        return replace(self, action=int(result.action), detail=result.detail)

    def to_json(self) -> dict[str, Any]:
        """The fields, for the outbox."""
        return asdict(self)


async def post(
    job: Job,
    guild: discord.Guild,
    policy: GuildPolicy,
    thumbnails: Sequence[bytes] = (),
    again: bool = False,
    evidence: Sequence[NamedFile] = (),
) -> str:
    """Post the entry of a job to the server's mod-log.

    Args:
        job: with the entry.
        guild: the server.
        policy: its settings.
        thumbnails: blurred JPEGs.
        again: it may have been posted before a crash, so look for it first.
        evidence: the pictures themselves.

    Returns:
        Why that failed, or nothing.
    """
    channel = modlog_channel(guild, policy)
    problem = modlog_problem(guild, policy)
    if channel is None or problem:
        return problem
    entry = Entry(**job.entry)
    role = guild.get_role(policy.moderators or 0) if entry.ping else None
    pictures = list_pictures((key, text) for key, text in entry.pictures)

    async def send() -> None:
        embed, files = build_entry(job, entry, thumbnails)  # per try: a file can be sent only once
        await channel.send(
            role.mention if role else None,
            embed=embed,
            files=[*files, *as_files(evidence)],
            view=review_view(job.channel_id, job.message_id, pictures),
            # Nothing else in the entry may ping anyone.
            allowed_mentions=discord.AllowedMentions(everyone=False, users=False, roles=[role] if role else False),
            # Discord posts a nonce once within some minutes, so that a retry cannot double the entry.
            nonce=int(job.id[:16], 16),
        )

    try:
        if again and await find_entry(channel, guild, job.id, job.created_at):
            return ""
        await retry(send)
    except DISCORD_ERRORS as error:
        return describe_error(error)
    return ""


async def find_entry(
    channel: ModlogChannel, guild: discord.Guild, entry_id: str, created_at: int
) -> discord.Message | None:
    """The entry with this mark in its footer, if the mod-log has it. `created_at`: Unix time before which it is not."""
    if missing_permissions(channel, read_message_history=True):
        return None
    since = datetime.fromtimestamp(created_at - 60, UTC)  # clocks differ
    async for message in channel.history(limit=SEARCHED, after=since, oldest_first=True):
        footer = message.embeds[0].footer.text if message.embeds else None
        if message.author.id == guild.me.id and (footer or "").endswith(footer_mark(entry_id)):
            return message
    return None


def footer_mark(entry_id: str) -> str:
    """How an entry's footer ends, by which it is found after a crash."""
    return f"#{entry_id[:8]}"


def build_entry(job: Job, entry: Entry, thumbnails: Sequence[bytes] = ()) -> tuple[discord.Embed, list[discord.File]]:
    """The embed and the blurred thumbnails of an entry: which pictures, why, and what was done."""
    embed = discord.Embed(
        title=f"{entry.label} {entry.score:.2f}",
        description="\n".join(entry.lines)[:2000],
        colour=discord.Colour.orange(),
        timestamp=discord.utils.snowflake_time(job.message_id),
    )
    author = f"<@{job.user_id}> ({job.user_id})" if job.user_id else "unknown"
    embed.add_field(name=AUTHOR_FIELD, value=author)
    link = f"https://discord.com/channels/{job.guild_id}/{job.channel_id}/{job.message_id}"
    embed.add_field(name="Message", value=link)
    result = ActionResult(Action(entry.action), entry.detail)
    embed.add_field(name="Action", value=describe_result(result)[:1000], inline=False)
    if entry.strike:
        embed.add_field(name=STRIKES_FIELD, value=entry.strike[:1000], inline=False)
    embed.set_footer(text=f"{entry.version} · {footer_mark(job.id)}")
    files = [
        discord.File(io.BytesIO(data), f"{BLURRED}-{place}.jpg")
        for place, data in enumerate(thumbnails[:MAX_THUMBNAILS])
    ]
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
    if finding.likely is not None:
        link = finding.likely.ruling.link
        where = f" ([that decision](https://discord.com/channels/{link}))" if link else ""
        return f"{line}, {finding.detail}{where}"
    return line if outcome.threshold is None else f"{line}, threshold {outcome.threshold:.3f}"


def describe_result(result: ActionResult) -> str:
    """What was done and why no more, in sentences."""
    return f"{RESULTS[result.action]} {as_sentence(result.detail)}".strip()
