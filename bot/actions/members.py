"""Members of a server by their id, and the end of a time-out."""

from __future__ import annotations

import time
from collections import OrderedDict

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


class Authors:
    """Authors of messages as members: Discord sends a new message with its member, and an old one without."""

    MAX, SECONDS = 1000, 300.0
    """Members that are remembered, and for how long: their roles may change."""

    def __init__(self) -> None:
        self._members: OrderedDict[tuple[int, int], tuple[float, discord.Member | None]] = OrderedDict()

    async def complete(self, message: discord.Message) -> None:
        """Make the author of a message a member, if they are one: roles and time-outs need that."""
        guild, author = message.guild, message.author
        if guild is None or isinstance(author, discord.Member) or message.webhook_id is not None:
            return
        key = guild.id, author.id
        known = self._members.get(key)
        if known is None or time.monotonic() - known[0] > self.SECONDS:
            member, _ = await fetch_member(guild, author.id)
            known = time.monotonic(), member
            self._members[key] = known
            while len(self._members) > self.MAX:
                self._members.popitem(last=False)
        if known[1] is not None:
            message.author = known[1]
