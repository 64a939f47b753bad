"""What the bot stores about a user, and its deletion."""

from __future__ import annotations

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.services import Services

NOTICE = """**What this bot stores**
For each picture that it checks: the ids of the server, channel, message and author, two hashes of the picture, the \
scores, the action taken, and a moderator's decision. It never stores pictures or message text, and trains on nothing.
If you appeal a decision, what you write is stored until it is posted to the moderators' channel.
Of pictures in several channels within a short time, which some servers look for, it stores the ids of the messages.
Everything is deleted after {days} days, or when the bot leaves the server.
`/privacy delete` deletes what is stored under your id, in all servers, with your appeals. If a picture is still \
waiting for review, its record stays until then, without your id, and is deleted with the decision. Moderators' \
decisions on a picture stay under its hashes, without the author's name; yours as a moderator goes, \
too. Where a server counts deletions, their number and dates \
stay under your id while they count, without message text or picture; its managers can delete them."""


@app_commands.guild_only()
class Privacy(DeferringCog, commands.GroupCog, group_name="privacy", group_description="Your data"):
    """`/privacy`, for everyone."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="show", description="Show what the bot stores about you")
    async def show(self, interaction: Interaction) -> None:
        await answer(interaction, NOTICE.format(days=self._services.settings.retention))

    @app_commands.command(name="delete", description="Delete what the bot stores about you")
    @app_commands.describe(user="another user, in this server only (needs Manage Server)")
    async def delete(self, interaction: Interaction, user: discord.User | None = None) -> None:
        store = self._services.store
        if user is None or user.id == interaction.user.id:
            count = await store.forget_user(interaction.user.id)
        elif interaction.permissions.manage_guild:
            # A manager's right ends at their own server.
            count = await store.forget_user(user.id, guild_of(interaction).id)
        else:
            raise app_commands.MissingPermissions(["manage_guild"])
        await answer(interaction, f"Deleted {plural(count, 'record')}." if count else "There were no records.")
