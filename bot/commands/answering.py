"""What all commands share: private answers, error messages, and checks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.discord_calls import permission_title
from bot.services import services_of
from stages.inference import MLpyError

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]
NOT_A_MODERATOR = "You need to see that channel, and the Manage Messages permission in it."
MESSAGE_LENGTH = 2000
"""Characters that Discord takes in one message."""


async def answer(interaction: Interaction, text: str, **more: Any) -> None:
    """Answer visibly to the asker alone."""
    text = text[:MESSAGE_LENGTH]
    if interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=True, **more)
    else:
        await interaction.response.send_message(text, ephemeral=True, **more)


class DeferringCog(commands.Cog):
    """Commands that may wait for the database: Discord is told at once that the answer takes a while."""

    async def interaction_check(self, interaction: Interaction, /) -> bool:
        """Defer each command before anything else: Discord waits only 3 s."""
        await interaction.response.defer(ephemeral=True)
        return True


async def on_command_error(interaction: Interaction, error: app_commands.AppCommandError) -> None:
    """Answer a failed command with one sentence; unexpected errors go to the log in full."""
    # discord.py wraps what a command raises.
    await report_error(interaction, error.original if isinstance(error, app_commands.CommandInvokeError) else error)


async def report_error(interaction: Interaction, cause: Exception) -> None:
    """Answer with one sentence on what went wrong; unexpected errors go to the log in full."""
    if isinstance(cause, app_commands.MissingPermissions):
        missing = " and ".join(map(permission_title, cause.missing_permissions))
        text = f"You need the {missing} permission for this command."
    elif isinstance(cause, app_commands.CheckFailure):
        text = str(cause) or "You are not allowed to use this command."
    elif isinstance(cause, MLpyError):
        services_of(interaction).metrics.errors.labels("command").inc()
        text = f"The command failed: {str(cause).rstrip('.')}."
    else:
        services_of(interaction).metrics.errors.labels("command").inc()
        log.error("a command failed", exc_info=cause)
        text = "The command failed. The bot's log has the details."
    try:
        await answer(interaction, text)
    except discord.HTTPException as error_of_answer:
        log.warning("could not report a command's failure: HTTP %s", error_of_answer.status)


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


async def require_moderator_of(interaction: Interaction, guild: discord.Guild, channel_id: int) -> None:
    """`require_moderator` for a channel or thread by its id. One that is deleted takes a server-wide moderator.

    Raises:
        app_commands.CheckFailure: if the asker is none.
    """
    channel = guild.get_channel_or_thread(channel_id)
    if channel is None:
        with suppress(discord.HTTPException):  # an archived thread, or one that nobody can see any more
            fetched = await guild.fetch_channel(channel_id)
            channel = fetched if isinstance(fetched, discord.Thread) else None
    if channel is not None:
        require_moderator(interaction, channel)
    elif not _server_permissions(interaction).manage_messages:
        raise app_commands.CheckFailure(NOT_A_MODERATOR)
    if isinstance(channel, discord.Thread) and channel.is_private():
        await _require_member(interaction, channel)


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


class Confirmation(discord.ui.View):
    """A question with one button, which does what was asked for."""

    def __init__(self, label: str, action: Callable[[Interaction], Awaitable[None]]) -> None:
        super().__init__(timeout=300)
        self._action = action
        button: discord.ui.Button[Any] = discord.ui.Button(label=label, style=discord.ButtonStyle.danger)
        button.callback = self._confirmed  # type: ignore[method-assign]
        self.add_item(button)

    async def _confirmed(self, interaction: Interaction) -> None:
        if self.is_finished():
            return
        self.stop()  # a second click must not do it again
        await interaction.response.defer(ephemeral=True)  # the database may be slow
        await self._action(interaction)

    async def on_error(self, interaction: Interaction, error: Exception, _item: discord.ui.Item[Any]) -> None:
        """Answer as for a command."""
        await report_error(interaction, error)


async def confirm(
    interaction: Interaction, question: str, label: str, action: Callable[[Interaction], Awaitable[None]]
) -> None:
    """Ask the asker alone; `action` is called with the click of the button `label`, and answers it."""
    await answer(interaction, question, view=Confirmation(label, action))


def guild_of(interaction: Interaction) -> discord.Guild:
    """The server that a command was used in.

    Raises:
        app_commands.CheckFailure: if it was used in a direct message.
    """
    guild = interaction.guild
    if guild is None:
        raise app_commands.CheckFailure("This command works only in a server.")
    return guild


def plural(count: int, noun: str) -> str:
    """A number with its noun: 1 picture, 2 pictures."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
