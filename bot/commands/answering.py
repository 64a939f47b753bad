"""What all commands share: private answers, error messages, and checks."""

from __future__ import annotations

import logging
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.discord_calls import permission_title
from bot.services import services_of
from stages.inference import MLpyError

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]
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
