"""Mod-log entries about waves: one author's pictures in several channels."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, retry
from bot.actions.evidence import NamedFile, as_files
from bot.actions.modlog import STRIKES_FIELD, find_entry, footer_mark
from bot.actions.review import AUTHOR_FIELD, MODERATOR_FIELD
from bot.actions.telling import modlog_channel, modlog_problem
from bot.actions.wave_review import wave_view
from bot.rules.bursts import PictureMarks
from bot.rules.policy import Action, GuildPolicy
from bot.storage.tables import OPEN, Wave

MAX_LINKS = 40
"""Links in the entry itself; all of more are in a file below it."""
MAX_MESSAGES = 1000
"""Messages of a wave that are remembered. Further ones are deleted all the same."""
MAX_MARKS = 50
"""Pictures of a wave that are remembered, to recognise them after a restart."""


@dataclass
class WaveEntry:
    """What the mod-log says about a wave. In the database, so it holds no picture and no text."""

    rule: str
    """That matched, in words."""
    action: int
    """The `Action` that the server's settings ask for: FLAG, DELETE or TIMEOUT."""
    minutes: int
    """Length of the time-out."""
    messages: list[list[int]] = field(default_factory=list)
    """Channel and message, in the order in which they were noticed."""
    marks: list[list[Any]] = field(default_factory=list)
    """Exact marks and perceptual hash of each picture."""
    failed: dict[str, str] = field(default_factory=dict)
    """Message -> why it could not be deleted: a clause."""
    author_result: str = ""
    """What was done to the author: a clause."""
    timed_out: bool = False
    strike: str = ""
    """What the number of deletions led to: sentences."""
    decision: str = ""
    """A moderator's: a line."""
    entry_id: int | None = None
    """The message in the mod-log."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The fields that `to_json` gave, without those of a newer version."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def to_json(self) -> dict[str, Any]:
        """The fields, for the database."""
        return asdict(self)

    def add_marks(self, pictures: Sequence[PictureMarks]) -> None:
        """Remember pictures."""
        known = {mark for exact, _ in self.marks for mark in exact}
        for marks in pictures:
            if len(self.marks) < MAX_MARKS and not (marks.exact and marks.exact <= known):
                self.marks.append([sorted(marks.exact), marks.phash])
                known |= marks.exact

    def picture_marks(self) -> list[PictureMarks]:
        """The pictures that are remembered."""
        return [PictureMarks(frozenset(exact), phash) for exact, phash in self.marks]


def describe_action(entry: WaveEntry) -> str:
    """What was done about a wave, in sentences."""
    if entry.action <= Action.FLAG:
        return "No action taken: waiting for review."
    total, failed = len(entry.messages), len(entry.failed)
    messages = "1 message" if total == 1 else f"{total} messages"
    text = f"Deleted {messages}." if not failed else f"Deleted {total - failed} of {messages}."
    for clause, count in Counter(entry.failed.values()).items():
        text += f" {as_sentence(f'not deleted ({count}): {clause}')}"
    return f"{text} {as_sentence(entry.author_result)}".strip()


def build_wave_entry(wave: Wave, pictures: Sequence[NamedFile] = ()) -> tuple[discord.Embed, list[discord.File]]:
    """The embed and the files of an entry about a wave.

    Args:
        wave: with its entry.
        pictures: files to attach: a blurred thumbnail, or the picture itself.
    """
    entry = WaveEntry.from_json(wave.entry)
    base = f"https://discord.com/channels/{wave.guild_id}"
    links = [f"{base}/{channel}/{message}" for channel, message in entry.messages]
    channels = len({channel for channel, _ in entry.messages})
    lines = [f"{entry.rule[:1].upper()}{entry.rule[1:]}", *links[:MAX_LINKS]]
    files = as_files(pictures)
    if len(links) > MAX_LINKS:
        lines.append(f"and {len(links) - MAX_LINKS} more: see messages.txt")
        files.append(discord.File(io.BytesIO("\n".join(links).encode()), "messages.txt"))
    embed = discord.Embed(
        title=f"Wave: {len(links)} messages in {channels} channels",
        description="\n".join(lines),
        colour=discord.Colour.red() if wave.state == OPEN else discord.Colour.dark_grey(),
        timestamp=discord.utils.snowflake_time(entry.messages[0][1]),
    )
    embed.add_field(name=AUTHOR_FIELD, value=f"<@{wave.user_id}> ({wave.user_id})" if wave.user_id else "unknown")
    embed.add_field(name="Action", value=describe_action(entry)[:1000], inline=False)
    if entry.strike:
        embed.add_field(name=STRIKES_FIELD, value=entry.strike[:1000], inline=False)
    if entry.decision:
        embed.add_field(name=MODERATOR_FIELD, value=entry.decision[:1000], inline=False)
    embed.set_footer(text=f"shield · {footer_mark(wave.id)}")
    return embed, files


async def tell(
    wave: Wave, guild: discord.Guild, policy: GuildPolicy, pictures: Sequence[NamedFile] = (), again: bool = False
) -> tuple[int | None, str]:
    """Post the entry about a wave to the mod-log, or bring the one that is there up to date.

    Args:
        wave: with its entry.
        guild: the server.
        policy: its settings.
        pictures: files to attach: a blurred thumbnail, or the picture itself.
        again: it may have been posted before a crash, so look for it first.

    Returns:
        The entry's message, and why it could not be posted, or nothing.
    """
    channel = modlog_channel(guild, policy)
    problem = modlog_problem(guild, policy)
    entry = WaveEntry.from_json(wave.entry)
    if channel is None or problem:
        return entry.entry_id, problem
    view = wave_view(wave.id, entry.action) if wave.state == OPEN else None
    posted: list[int] = []

    async def send() -> None:
        embed, files = build_wave_entry(wave, pictures)  # per try: a file can be sent only once
        message = await channel.send(
            embed=embed,
            files=files,
            view=view or discord.utils.MISSING,
            allowed_mentions=discord.AllowedMentions.none(),
            # Discord posts a nonce once within some minutes, so that a retry cannot double the entry.
            nonce=int(wave.id[:16], 16),
        )
        posted.append(message.id)

    async def edit(message_id: int) -> None:
        embed, files = build_wave_entry(wave)
        attachments = files or discord.utils.MISSING  # a longer list; otherwise the thumbnails stay
        await channel.get_partial_message(message_id).edit(embed=embed, view=view, attachments=attachments)

    try:
        if entry.entry_id is None and again and (found := await find_entry(channel, guild, wave.id, wave.created_at)):
            entry.entry_id = found.id
        if entry.entry_id is None:
            await retry(send)
            return posted[-1], ""
        await retry(lambda: edit(entry.entry_id or 0))
    except discord.NotFound:
        return entry.entry_id, ""  # a moderator deleted the entry
    except DISCORD_ERRORS as error:
        return entry.entry_id, describe_error(error)
    return entry.entry_id, ""
