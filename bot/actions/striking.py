"""Counting deletions against their author, and what a server's settings make of their number."""

from __future__ import annotations

from dataclasses import replace

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, permission_title, retry
from bot.actions.execution import time_out
from bot.actions.members import fetch_member
from bot.rules.policy import GuildPolicy
from bot.rules.strikes import Penalty, StrikePolicy
from bot.services import Services
from bot.storage.database import StoreError

NEEDED = {Penalty.KICK: "kick_members", Penalty.BAN: "ban_members"}
DONE = {Penalty.KICK: "kicked", Penalty.BAN: "banned"}


async def strike(
    services: Services, guild: discord.Guild, policy: GuildPolicy, user_id: int | None, message_id: int, cause: str
) -> str:
    """Count the deletion of a message, once, and do what is due. Never raises.

    Args:
        services: those of the running bot.
        guild: the server.
        policy: its settings.
        user_id: the author.
        message_id: the deleted message; of a wave, the first.
        cause: who or what deleted it, for Discord's audit log.

    Returns:
        Sentences for the mod-log; empty if deletions are not counted.
    """
    strikes = policy.strikes
    if not strikes.on or user_id is None:
        return ""
    try:
        count = await services.store.add_strike(guild.id, user_id, message_id, strikes.days)
    except StoreError as error:
        services.metrics.errors.labels("store").inc()
        return f"Not counted: {error}."
    text = f"{count} in {strikes.days} days."
    penalty = strikes.penalty(count)
    if penalty is Penalty.NONE:
        return text
    result = await _punish(guild, policy, user_id, penalty, f"{count} deletions in {strikes.days} days; {cause}")
    services.metrics.actions.labels(f"strike {penalty.value}", "refused" if "failed" in result else "done").inc()
    return f"{text} {as_sentence(result)}"


async def _punish(guild: discord.Guild, policy: GuildPolicy, user_id: int, penalty: Penalty, reason: str) -> str:
    """Time a member out, kick or ban them. Returns what came of it: a clause."""
    member, failure = await fetch_member(guild, user_id)
    if member is None and penalty is not Penalty.BAN:
        return f"{_name(penalty)} failed: {failure}"
    if penalty is Penalty.TIMEOUT:
        assert member is not None  # noqa: S101
        longer = replace(policy, timeout_minutes=policy.strikes.minutes)
        return await time_out(member, longer, reason) or describe_timeout(policy.strikes)
    if failure := _refusal(guild, member, penalty):
        return f"{_name(penalty)} failed: {failure}"
    try:
        if penalty is Penalty.BAN:
            # What the author posted besides stays: the moderators decide on that.
            await retry(lambda: guild.ban(discord.Object(user_id), reason=reason[:512], delete_message_seconds=0))
        else:
            await retry(lambda: guild.kick(discord.Object(user_id), reason=reason[:512]))
    except DISCORD_ERRORS as error:
        return f"{_name(penalty)} failed: {describe_error(error)}"
    return f"author {DONE[penalty]}"


def describe_timeout(strikes: StrikePolicy) -> str:
    """The longer time-out in words."""
    return f"author timed out for {strikes.minutes} minutes"


def _name(penalty: Penalty) -> str:
    return "time-out" if penalty is Penalty.TIMEOUT else penalty.value


def _refusal(guild: discord.Guild, member: discord.Member | None, penalty: Penalty) -> str:
    """Why Discord would refuse a kick or ban with a plain 403: a clause, or nothing."""
    me = guild.me
    if not getattr(me.guild_permissions, NEEDED[penalty]):
        return f"missing permission {permission_title(NEEDED[penalty])}"
    if member is not None and (member.id == guild.owner_id or member.top_role >= me.top_role):
        return "the author's role ranks too high for the bot"
    return ""
