"""How commands answer, and what a failed one says."""

from __future__ import annotations

import logging
from typing import Any

import discord
from discord import app_commands

from bot.services import services_of
from stages.inference import MLpyError

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]


async def answer(interaction: Interaction, text: str, **more: Any) -> None:
    """Tell the asker alone."""
    if interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=True, **more)
    else:
        await interaction.response.send_message(text, ephemeral=True, **more)


async def failed(interaction: Interaction, error: app_commands.AppCommandError) -> None:
    """One sentence to the asker; the log has the rest."""
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    if isinstance(cause, app_commands.MissingPermissions):
        missing = ", ".join(name.replace("_", " ").title() for name in cause.missing_permissions)
        text = f"You need {missing} for this."
    elif isinstance(cause, app_commands.CheckFailure):
        text = str(cause) or "You may not do this."
    elif isinstance(cause, MLpyError):
        services_of(interaction).metrics.errors.labels("command").inc()
        text = f"That did not work: {cause}."
    else:
        services_of(interaction).metrics.errors.labels("command").inc()
        log.error("a command failed", exc_info=cause)
        text = "That did not work; the bot's log says why."
    try:
        await answer(interaction, text)
    except discord.HTTPException as silent:
        log.warning("a command's failure could not be told: HTTP %s", silent.status)


def guild_of(interaction: Interaction) -> discord.Guild:
    """The server that a command was given in."""
    guild = interaction.guild
    if guild is None:
        raise app_commands.CheckFailure("Only in a server.")
    return guild
