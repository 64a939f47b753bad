"""What is kept, and having it removed."""

from __future__ import annotations

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import Interaction, answer, guild_of
from bot.services import Services

KEPT = """**What this bot keeps**
For each picture it looked at: the ids of server, channel, message and author, two hashes of the picture, the scores, \
what was done, and what a moderator decided. Never the picture, never what you wrote. Nothing is trained on it.
All of it goes after {days} days, or when the bot leaves the server.
`/privacy delete` removes what is kept under your id, here and in other servers; a picture that moderators have yet to \
look at stays until they do, without your id. Their decisions on pictures are kept by hash alone, without a name."""


@app_commands.guild_only()
class Privacy(commands.GroupCog, group_name="privacy", group_description="What is kept of you"):
    """For everyone."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="show", description="Show what is kept")
    async def show(self, interaction: Interaction) -> None:
        await answer(interaction, KEPT.format(days=self._services.settings.retention))

    @app_commands.command(name="delete", description="Remove what is kept of you")
    @app_commands.describe(user="of someone else, in this server; for those who may manage it")
    async def delete(self, interaction: Interaction, user: discord.User | None = None) -> None:
        if user is None or user.id == interaction.user.id:
            gone = await self._services.store.forget(interaction.user.id)
        elif interaction.permissions.manage_guild:
            gone = await self._services.store.forget(user.id, guild_of(interaction).id)
        else:
            raise app_commands.MissingPermissions(["manage_guild"])
        await answer(interaction, f"Done: {gone} rows.")
