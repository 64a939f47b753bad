"""The blurred thumbnail of a picture that was decided on. The mod-log has it, and nothing else."""

from __future__ import annotations

import discord

from bot.actions.discord_calls import DISCORD_ERRORS
from bot.pictures.fetching import UnfetchedError
from bot.services import Services

BLURRED = "SPOILER_blurred"
"""How the names of blurred thumbnails begin. Posted entries have it: never change it."""
MAX_BYTES = 100_000


async def remembered_thumbnail(services: Services, client: discord.Client, link: str) -> bytes | None:
    """The thumbnail in the mod-log entry of an earlier decision.

    Args:
        services: of the bot.
        client: the bot.
        link: server/channel/message.

    Returns:
        A JPEG; None if the entry is gone, cannot be read, or has several.
    """
    numbers = link.split("/")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        return None
    guild, channel, message = map(int, numbers)
    try:
        entry = await client.get_partial_messageable(channel, guild_id=guild).fetch_message(message)
    except DISCORD_ERRORS:
        return None
    blurred = [each for each in entry.attachments if each.filename.startswith(BLURRED)]
    if client.user is None or entry.author.id != client.user.id or len(blurred) != 1:
        return None
    try:
        return await services.fetcher.fetch_file(blurred[0].url, MAX_BYTES)
    except UnfetchedError:
        return None
