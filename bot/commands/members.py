"""Small commands for everyone."""

from __future__ import annotations

import re
import secrets

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import MESSAGE_LENGTH, Interaction, answer
from bot.services import Services

MAX_DICE, MAX_SIDES = 100, 1000
"""Of one roll."""


def roll_dice(dice: str) -> list[int] | None:
    """Roll dice written as NdM, such as 2d6. None if they are not written so, or too many or too large."""
    match = re.fullmatch(r"\s*(\d{0,3})\s*[dD]\s*(\d{1,4})\s*", dice)
    if match is None:
        return None
    count, sides = int(match[1] or 1), int(match[2])
    if not (1 <= count <= MAX_DICE and 1 <= sides <= MAX_SIDES):
        return None
    return [secrets.randbelow(sides) + 1 for _ in range(count)]


def describe_member(member: discord.Member) -> discord.Embed:
    """A member's roles, and since when they are on Discord and in the server."""
    joined = f"<t:{int(member.joined_at.timestamp())}:D>" if member.joined_at else "unknown"
    embed = discord.Embed(title=member.display_name, description=member.mention)
    embed.add_field(name="Account created", value=f"<t:{int(member.created_at.timestamp())}:D>")
    embed.add_field(name="Joined", value=joined)
    embed.add_field(name="Roles", value=", ".join(role.mention for role in member.roles[1:])[:1000] or "none")
    embed.set_thumbnail(url=member.display_avatar.url)
    return embed


class Members(commands.Cog):
    """`/info`, `/avatar` and `/roll`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="info", description="Show what this bot does, or information about a member")
    @app_commands.describe(member="member to look up; leave empty for the bot")
    @app_commands.guild_only()
    async def info(self, interaction: Interaction, member: discord.Member | None = None) -> None:
        if member is not None:
            await interaction.response.send_message(embed=describe_member(member), ephemeral=True)
            return
        await answer(
            interaction,
            "I check the pictures posted in this server and help its moderators. If I got one of yours wrong, ask a "
            f"moderator: they have the final say.\nModel: {self._services.serving.version}. "
            "Stored data: `/privacy show`.",
        )

    @app_commands.command(name="avatar", description="Show an avatar in full size")
    @app_commands.describe(member="member whose avatar to show; leave empty for your own")
    @app_commands.guild_only()
    async def avatar(self, interaction: Interaction, member: discord.Member | None = None) -> None:
        user = member or interaction.user
        embed = discord.Embed(title=user.display_name).set_image(url=user.display_avatar.with_size(1024).url)
        await interaction.response.send_message(embed=embed)

    @app_commands.command(name="roll", description="Roll dice")
    @app_commands.describe(dice="number of dice and sides, such as 2d6")
    async def roll(self, interaction: Interaction, dice: str = "1d6") -> None:
        values = roll_dice(dice)
        if values is None:
            await answer(interaction, f"Write it as NdM, such as 2d6: up to {MAX_DICE} dice with {MAX_SIDES} sides.")
            return
        total = f" = {sum(values)}" if len(values) > 1 else ""
        await interaction.response.send_message(
            f"{dice.strip()}: {', '.join(map(str, values))}{total}"[:MESSAGE_LENGTH]
        )
