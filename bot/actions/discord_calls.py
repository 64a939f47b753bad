"""Calls to Discord: retries, missing permissions, and errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import discord

DISCORD_ERRORS = (discord.HTTPException, aiohttp.ClientError, OSError)
"""What a call to Discord raises if it is refused or gets no answer. TimeoutError is an OSError."""
TRIES = 3
PAUSE = 1.0
"""Seconds before the second try, doubled before the third."""


async def retry(call: Callable[[], Awaitable[object]]) -> None:
    """Make an idempotent call, and retry it on 5xx and connection errors. discord.py gives up at once on a 503.

    Raises:
        discord.HTTPException: if Discord refuses, or every try gets a 5xx.
        aiohttp.ClientError, OSError: if Discord cannot be reached.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            await call()
            return
        except DISCORD_ERRORS as error:
            if not left or (isinstance(error, discord.HTTPException) and error.status < 500):
                raise
            await asyncio.sleep(PAUSE * 2 ** (TRIES - 1 - left))


def missing_permissions(channel: object, **required: bool) -> str:
    """The permissions that the bot lacks in a channel, as "missing permission: Manage Messages"; empty if none.

    Check before each call: Discord bans bots for a while that send too many requests it has to refuse.
    """
    if not isinstance(channel, discord.abc.GuildChannel | discord.Thread):
        return ""
    held = channel.permissions_for(channel.guild.me)
    missing = [permission_title(name) for name in required if not getattr(held, name)]
    return f"missing permission{'s' if len(missing) > 1 else ''}: {', '.join(missing)}" if missing else ""


def permission_title(name: str) -> str:
    """discord.py's name of a permission as Discord's own settings show it: manage_guild is Manage Server there."""
    return name.replace("guild", "server").replace("_", " ").title()


def describe_error(error: Exception) -> str:
    """One of `DISCORD_ERRORS` as a short clause."""
    if not isinstance(error, discord.HTTPException):
        return f"the connection to Discord failed ({type(error).__name__})"
    return f"Discord answered HTTP {error.status} ({(error.text or type(error).__name__)[:160]})"


def as_sentence(clause: str) -> str:
    """A clause with a capital letter and a full stop; empty if it is empty."""
    return f"{clause[:1].upper()}{clause[1:]}." if clause else ""
