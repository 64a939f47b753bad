"""Acting on a message: delete it, repost it behind a spoiler, time its author out."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, missing_permissions, retry
from bot.pictures.fetching import Fetcher, UnfetchedError
from bot.rules.policy import Action, GuildPolicy, RuleOutcome

MESSAGE_LENGTH = 2000
"""Characters that Discord takes in one message."""


@dataclass(frozen=True)
class ActionResult:
    """What was done to a message. FLAG if Discord did not allow more."""

    action: Action
    detail: str = ""
    """Why less was done than the rules asked for: a clause without capital and full stop."""


async def carry_out(
    message: discord.Message, action: Action, outcome: RuleOutcome, policy: GuildPolicy, fetcher: Fetcher
) -> ActionResult:
    """Do `action` to a message, or the next milder thing that Discord allows. Never raises."""
    if action in (Action.LOG, Action.FLAG):
        return ActionResult(action)
    try:
        if action is Action.SPOILER:
            return await _spoiler(message, outcome, fetcher)
        if action is Action.TIMEOUT:
            return await _time_out_and_delete(message, outcome, policy)
        return await _delete(message, action)
    except DISCORD_ERRORS as error:
        return ActionResult(Action.FLAG, describe_error(error))


async def _delete(message: discord.Message, action: Action, detail: str = "") -> ActionResult:
    """Delete a message; the result is `action` and `detail` if that succeeds."""
    if missing := missing_permissions(message.channel, manage_messages=True):
        return ActionResult(Action.FLAG, missing)
    try:
        await retry(message.delete)
    except discord.NotFound:
        return ActionResult(action, detail or "the author had already deleted it")
    return ActionResult(action, detail)


async def _time_out_and_delete(message: discord.Message, outcome: RuleOutcome, policy: GuildPolicy) -> ActionResult:
    member = message.author
    # Before the deletion, whose result then says whether the time-out succeeded.
    if isinstance(member, discord.Member):
        failure = await time_out(member, policy, f"{outcome.label} {outcome.score:.2f}")
    else:  # a webhook, or somebody who has left
        failure = "time-out failed: the author is not a member of this server"
    return await _delete(message, Action.DELETE if failure else Action.TIMEOUT, failure)


async def time_out(member: discord.Member, policy: GuildPolicy, reason: str) -> str:
    """Time a member out for as long as the policy says. Returns why that failed, or nothing."""
    me = member.guild.me
    if not me.guild_permissions.moderate_members:
        return "time-out failed: missing permission Moderate Members"
    # Discord refuses both with a plain 403; say which it is.
    if member.guild_permissions.administrator:
        return "time-out failed: the author is an administrator"
    if member.top_role >= me.top_role:
        return "time-out failed: the author's role ranks too high for the bot"
    try:
        await retry(lambda: member.timeout(timedelta(minutes=policy.timeout_minutes), reason=reason))
    except DISCORD_ERRORS as error:
        return f"time-out failed: {describe_error(error)}"
    return ""


async def _spoiler(message: discord.Message, outcome: RuleOutcome, fetcher: Fetcher) -> ActionResult:
    """Repost a message with its files behind spoilers, then delete it. What cannot be reposted is not deleted."""
    if missing := missing_permissions(message.channel, manage_messages=True, send_messages=True, attach_files=True):
        return ActionResult(Action.FLAG, missing)
    if message.message_snapshots or message.stickers:
        return ActionResult(Action.FLAG, "not reposted: forwarded messages and stickers cannot be hidden")
    try:
        files = await _spoilered_files(message, fetcher)
    except UnfetchedError as error:
        return ActionResult(Action.FLAG, f"not reposted: {error.detail}")
    # The text may mention everyone; the author's own mention was limited by their permissions, the bot's is not.
    await message.channel.send(
        _spoilered_text(message, outcome.label),
        files=files,
        allowed_mentions=discord.AllowedMentions.none(),
        **_reply_reference(message),
    )
    return await _delete(message, Action.SPOILER)


async def _spoilered_files(message: discord.Message, fetcher: Fetcher) -> list[discord.File]:
    """Fetch a message's attachments, all together within what the server's boost level lets the bot upload."""
    assert message.guild is not None  # noqa: S101 - direct messages are skipped
    remaining = message.guild.filesize_limit
    files = []
    for attachment in message.attachments:
        data = await fetcher.fetch_file(attachment.url, remaining)
        remaining -= len(data)
        files.append(discord.File(io.BytesIO(data), attachment.filename.removeprefix("SPOILER_"), spoiler=True))
    return files


def _spoilered_text(message: discord.Message, label: str) -> str:
    """A message's words below its author's name; links whose embeds show pictures move behind spoilers."""
    links = " ".join(f"|| {embed.url} ||" for embed in message.embeds if embed.url)
    text = message.content
    for embed in message.embeds:
        text = text.replace(embed.url or "\0", "")  # no message contains NUL
    head = f"{message.author.mention} posted ({label}):"
    return (f"{head}\n{text.strip()}"[: MESSAGE_LENGTH - len(links) - 1] + f"\n{links}").strip()


def _reply_reference(message: discord.Message) -> dict[str, Any]:
    """Keyword arguments that make a repost reply to the same message."""
    reference = message.reference
    if reference is None or reference.message_id is None or reference.type is not discord.MessageReferenceType.reply:
        return {}
    # The message that was replied to may have been deleted meanwhile.
    replied_to = discord.MessageReference(
        message_id=reference.message_id, channel_id=reference.channel_id, fail_if_not_exists=False
    )
    return {"reference": replied_to}
