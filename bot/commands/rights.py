"""Who may ask about a channel: commands are checked where they are used, which may be another one."""

from __future__ import annotations

import discord
from discord import app_commands

from bot.commands.answering import Interaction

needs_manager = app_commands.checks.has_permissions(manage_guild=True)
"""For a server's settings. Every click below such a command's answer needs the same, see `bot.commands.confirming`."""
NOT_A_MODERATOR = "You need to see that channel, and the Manage Messages permission in it."


def require_moderator(interaction: Interaction, channel: discord.abc.GuildChannel | discord.Thread) -> None:
    """Check that the asker sees a channel and may delete messages in it.

    Discord checks permissions where a command is used, which may be another channel than the one it is about.

    Raises:
        app_commands.CheckFailure: if not.
    """
    member = interaction.user
    held = channel.permissions_for(member) if isinstance(member, discord.Member) else discord.Permissions.none()
    if not (held.view_channel and held.read_message_history and held.manage_messages):
        raise app_commands.CheckFailure(NOT_A_MODERATOR)


def require_server_moderator(interaction: Interaction) -> None:
    """Check that the asker may delete messages in the whole server: what is remembered holds in all of it.

    Raises:
        app_commands.CheckFailure: if not.
    """
    if not _server_permissions(interaction).manage_messages:
        raise app_commands.CheckFailure("You need the Manage Messages permission in this server.")


async def require_moderator_of(interaction: Interaction, guild: discord.Guild, channel_id: int) -> None:
    """`require_moderator` for a channel or thread by its id. One that is deleted takes a server-wide moderator.

    Raises:
        app_commands.CheckFailure: if the asker is none.
    """
    channel = guild.get_channel_or_thread(channel_id) or await _fetch_thread(guild, channel_id)
    if channel is not None:
        require_moderator(interaction, channel)
    elif not _server_permissions(interaction).manage_messages:
        raise app_commands.CheckFailure(NOT_A_MODERATOR)
    if isinstance(channel, discord.Thread) and channel.is_private():
        await _require_member(interaction, channel)


async def _fetch_thread(guild: discord.Guild, channel_id: int) -> discord.Thread | None:
    """An archived thread, which the bot does not remember; None if it is deleted."""
    try:
        channel = await guild.fetch_channel(channel_id)
    except discord.NotFound:
        return None
    except discord.HTTPException:  # hidden from the bot, so nobody knows who sees it
        raise app_commands.CheckFailure(NOT_A_MODERATOR) from None
    if not isinstance(channel, discord.Thread):
        raise app_commands.CheckFailure(NOT_A_MODERATOR)
    return channel


async def _require_member(interaction: Interaction, thread: discord.Thread) -> None:
    """Private threads are for their members, and for who manages threads."""
    member = interaction.user
    if isinstance(member, discord.Member) and thread.permissions_for(member).manage_threads:
        return
    try:
        await thread.fetch_member(member.id)
    except discord.HTTPException:
        raise app_commands.CheckFailure(NOT_A_MODERATOR) from None


def _server_permissions(interaction: Interaction) -> discord.Permissions:
    member = interaction.user
    return member.guild_permissions if isinstance(member, discord.Member) else discord.Permissions.none()
