"""Acting on a message: delete it, repost it behind a spoiler, time its author out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, missing_permissions, retry
from bot.actions.reposting import not_repostable, repost
from bot.actions.telling import untold_reason
from bot.pictures.fetching import Fetcher, UnfetchedError
from bot.rules.policy import Action, GuildPolicy, RuleOutcome, limit_action


@dataclass(frozen=True)
class ActionResult:
    """What was done to a message. FLAG if Discord did not allow more."""

    action: Action
    detail: str = ""
    """Why less was done than the rules asked for: a clause without capital and full stop."""
    repost_id: int | None = None
    """The bot's message with the pictures behind spoilers."""


def allowed_action(action: Action, guild: discord.Guild, policy: GuildPolicy) -> Action:
    """What a server's mode allows of an action, and its mod-log: moderators must be told of more than a flag."""
    limited = limit_action(policy.mode, action)
    return min(limited, Action.FLAG) if untold_reason(guild, policy) else limited


async def carry_out(
    message: discord.Message, action: Action, outcome: RuleOutcome, policy: GuildPolicy, fetcher: Fetcher
) -> ActionResult:
    """Do `action` to a message, or the next milder thing that Discord allows. Never raises."""
    if action in (Action.LOG, Action.FLAG):
        return ActionResult(action)
    assert message.guild is not None  # noqa: S101 - direct messages are skipped
    if reason := untold_reason(message.guild, policy):
        return ActionResult(Action.FLAG, f"nobody could be told of more: {reason}")
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
    # Before the deletion, whose result then says whether the time-out succeeded.
    if member := await _member(message):
        failure = await time_out(member, policy, f"{outcome.label} {outcome.score:.2f}")
    else:
        failure = "time-out failed: the author is not a member of this server"
    return await _delete(message, Action.DELETE if failure else Action.TIMEOUT, failure)


async def _member(message: discord.Message) -> discord.Member | None:
    """The author; None for a webhook, or somebody who has left. Messages that were fetched come without it."""
    author = message.author
    if isinstance(author, discord.Member):
        return author
    if message.webhook_id is not None or message.guild is None:
        return None
    try:
        return await message.guild.fetch_member(author.id)
    except discord.NotFound:
        return None


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
    if reason := not_repostable(message):
        return ActionResult(Action.FLAG, reason)
    try:
        posted = await repost(message, outcome.label, fetcher)
    except UnfetchedError as error:
        return ActionResult(Action.FLAG, f"not reposted: {error.detail}")
    try:
        return replace(await _delete(message, Action.SPOILER), repost_id=posted.id)
    except DISCORD_ERRORS as error:
        with suppress(*DISCORD_ERRORS):  # two copies of it would be worse than one
            await retry(posted.delete)
        return ActionResult(Action.FLAG, describe_error(error))
