"""Members of a server by their id, and the end of a time-out."""

from __future__ import annotations

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, retry

UNKNOWN_MEMBER = 10007
"""Discord's code for a user who is not in the server."""


async def lift_time_out(member: discord.Member, reason: str) -> str:
    """End a member's time-out. Returns what came of it."""
    try:
        await retry(lambda: member.timeout(None, reason=reason))
    except DISCORD_ERRORS as error:
        return f"the time-out could not be lifted: {describe_error(error)}"
    return "time-out lifted"


async def fetch_member(guild: discord.Guild, user_id: int | None) -> tuple[discord.Member | None, str]:
    """A member of the server, or why there is none: a clause."""
    if user_id is None:
        return None, "the author is not known any more"
    try:
        return guild.get_member(user_id) or await guild.fetch_member(user_id), ""
    except discord.NotFound as error:
        left = error.code == UNKNOWN_MEMBER
        return None, f"the author {'has left the server' if left else 'is not a member, but a webhook or deleted'}"
    except DISCORD_ERRORS as error:
        return None, describe_error(error)
