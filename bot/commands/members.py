"""Small things for everyone."""

from __future__ import annotations

import re
import secrets

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import Interaction, answer
from bot.services import Services

DICE, SIDES = 100, 1000
"""Most of each in one roll."""


def rolled(dice: str) -> list[int] | None:
    """Roll dice written as NdM, such as 2d6; None if that is not what it says."""
    match = re.fullmatch(r"\s*(\d{0,3})\s*[dD]\s*(\d{1,4})\s*", dice)
    if match is None:
        return None
    count, sides = int(match[1] or 1), int(match[2])
    if not (1 <= count <= DICE and 1 <= sides <= SIDES):
        return None
    return [secrets.randbelow(sides) + 1 for _ in range(count)]


class Members(commands.Cog):
    """For everyone."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="info", description="What this bot does, or who somebody is")
    @app_commands.guild_only()
    async def info(self, interaction: Interaction, member: discord.Member | None = None) -> None:
        if member is None:
            await answer(
                interaction,
                "I look at the pictures that are posted here and help the moderators with them.\n"
                f"Model: {self._services.serving.version}. What I keep: `/privacy show`. Wrong about your picture? "
                "Ask a moderator: they decide, not I.",
            )
            return
        joined = f"<t:{int(member.joined_at.timestamp())}:D>" if member.joined_at else "unknown"
        embed = discord.Embed(title=member.display_name, description=member.mention)
        embed.add_field(name="Account since", value=f"<t:{int(member.created_at.timestamp())}:D>")
        embed.add_field(name="Here since", value=joined)
        embed.add_field(name="Roles", value=", ".join(role.mention for role in member.roles[1:])[:1000] or "none")
        embed.set_thumbnail(url=member.display_avatar.url)
        await interaction.response.send_message(embed=embed, ephemeral=True)

    @app_commands.command(name="avatar", description="Show an avatar in full size")
    @app_commands.guild_only()
    async def avatar(self, interaction: Interaction, member: discord.Member | None = None) -> None:
        user = member or interaction.user
        embed = discord.Embed(title=user.display_name).set_image(url=user.display_avatar.with_size(1024).url)
        await interaction.response.send_message(embed=embed)

    @app_commands.command(name="roll", description="Roll dice")
    @app_commands.describe(dice="such as 2d6")
    async def roll(self, interaction: Interaction, dice: str = "1d6") -> None:
        found = rolled(dice)
        if found is None:
            await answer(interaction, f"Write it as NdM, such as 2d6: at most {DICE} dice of {SIDES} sides.")
            return
        faces = ", ".join(map(str, found))
        total = f" = {sum(found)}" if len(found) > 1 else ""
        await interaction.response.send_message(f"{dice.strip()}: {faces}{total}"[:2000])
