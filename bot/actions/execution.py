"""Doing to a message what was decided, and saying what came of it."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import discord

from bot.pictures.fetching import Fetcher, UnfetchedError
from bot.rules.policy import Action, GuildPolicy, Outcome

log = logging.getLogger(__name__)

UNDONE = (discord.HTTPException, aiohttp.ClientError, OSError)
"""What a call raises that Discord refused or could not do, or that got no answer; TimeoutError is an OSError."""
TRIES = 3
PAUSE = 1.0
"""Seconds before the second try, doubled before the third."""
Channel = discord.abc.GuildChannel | discord.Thread


@dataclass(frozen=True)
class Done:
    """What was done of an action. Where Discord refused, moderators are told instead: FLAG."""

    action: Action
    detail: str = ""


async def carry_out(
    message: discord.Message, wanted: Action, outcome: Outcome, policy: GuildPolicy, fetcher: Fetcher
) -> Done:
    """Do to a message what is wanted, or the next milder thing that Discord allows. Never raises."""
    if wanted in (Action.LOG, Action.FLAG):
        return Done(wanted)
    try:
        if wanted is Action.SPOILER:
            return await _spoiler(message, outcome, fetcher)
        detail = await _time_out(message, outcome, policy) if wanted is Action.TIMEOUT else ""
        return await _delete(message, Action.DELETE if detail else wanted, detail)
    except UNDONE as error:
        return Done(Action.FLAG, f"Discord did not do it: {refusal(error)}")


async def _delete(message: discord.Message, action: Action, detail: str = "") -> Done:
    if missing := lacking(message.channel, manage_messages=True):
        return Done(Action.FLAG, missing)
    try:
        await persisting(message.delete)
    except discord.NotFound:
        return Done(action, detail or "its author was faster")
    return Done(action, detail)


async def _time_out(message: discord.Message, outcome: Outcome, policy: GuildPolicy) -> str:
    """Time the author out; why not, or nothing."""
    member = message.author
    if not isinstance(member, discord.Member):
        return "no time-out: the author is no member"
    return await time_out(member, policy, f"{outcome.label} {outcome.score:.2f}")


async def time_out(member: discord.Member, policy: GuildPolicy, reason: str) -> str:
    """Time a member out for as long as the guild's policy says; why not, or nothing."""
    mine = member.guild.me
    if not mine.guild_permissions.moderate_members:
        return "no time-out: the bot lacks Moderate Members"
    if member.guild_permissions.administrator or member.top_role >= mine.top_role:
        return "no time-out: the member ranks too high"
    try:
        await persisting(lambda: member.timeout(timedelta(minutes=policy.timeout_minutes), reason=reason))
    except UNDONE as error:
        return f"no time-out: {refusal(error)}"
    return ""


async def _spoiler(message: discord.Message, outcome: Outcome, fetcher: Fetcher) -> Done:
    """Post the message again with its files hidden behind spoilers, then delete it. Nothing is deleted that was not
    posted again.
    """
    if missing := lacking(message.channel, manage_messages=True, send_messages=True, attach_files=True):
        return Done(Action.FLAG, missing)
    guild = message.guild
    assert guild is not None  # noqa: S101 (only guilds' messages are looked at)
    room = guild.filesize_limit
    files = []
    try:
        for each in message.attachments:
            data = await fetcher.file(each.url, room)
            room -= len(data)
            files.append(discord.File(io.BytesIO(data), each.filename.removeprefix("SPOILER_"), spoiler=True))
    except UnfetchedError as error:
        return Done(Action.FLAG, f"not posted again: {error.detail}")
    if message.message_snapshots or message.stickers:
        return Done(Action.FLAG, "not posted again: forwarded messages and stickers cannot be hidden")
    links = " ".join(f"|| {embed.url} ||" for embed in message.embeds if embed.url)
    text = message.content
    for embed in message.embeds:
        text = text.replace(embed.url or "\0", "")
    head = f"{message.author.mention} posted ({outcome.label}):"
    content = f"{head}\n{text.strip()}"[: 2000 - len(links) - 1] + f"\n{links}"
    quiet = discord.AllowedMentions.none()
    await message.channel.send(content.strip(), files=files, allowed_mentions=quiet, **_answered(message))
    return await _delete(message, Action.SPOILER)


def _answered(message: discord.Message) -> dict[str, Any]:
    """What the message answered, so that the new one does, too."""
    found = message.reference
    if found is None or found.message_id is None or found.type is not discord.MessageReferenceType.reply:
        return {}
    answered = discord.MessageReference(
        message_id=found.message_id, channel_id=found.channel_id, fail_if_not_exists=False
    )
    return {"reference": answered}


async def persisting(call: Callable[[], Awaitable[object]]) -> None:
    """Do what may safely be done twice, again where Discord's servers falter: discord.py gives up at once on a 503, and
    on a line that was cut.

    Raises:
        discord.HTTPException: if they falter for too long, or refuse.
        aiohttp.ClientError, OSError: if they cannot be reached.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            await call()
            return
        except UNDONE as error:
            if not left or (isinstance(error, discord.HTTPException) and error.status < 500):
                raise
            await asyncio.sleep(PAUSE * 2 ** (TRIES - 1 - left))


def lacking(channel: object, **wanted: bool) -> str:
    """What permissions the bot lacks in a channel, in words; nothing if it has all. To ask Discord in vain too often
    gets a bot locked out.
    """
    if not isinstance(channel, Channel):
        return ""
    found = channel.permissions_for(channel.guild.me)
    missing = [name.replace("_", " ").title() for name in wanted if not getattr(found, name)]
    return f"the bot lacks {', '.join(missing)} in this channel" if missing else ""


def refusal(error: Exception) -> str:
    """A short reason from Discord's answer, or why there is none."""
    if not isinstance(error, discord.HTTPException):
        return f"the line to Discord broke ({type(error).__name__})"
    return f"HTTP {error.status}, {error.text or type(error).__name__}"[:200]
