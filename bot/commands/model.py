"""Which model is served, and taking up another one."""

from __future__ import annotations

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import Interaction, answer
from bot.services import Services
from stages.inference.sidecar import Sidecar


def described(version: str, md5: str, asked: str, sidecar: Sidecar) -> str:
    """A model, in words."""
    thresholds = ", ".join(f"{label} from {value:.3f}" for label, value in sidecar.thresholds.items())
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in sidecar.metrics.items())
    return "\n".join(
        [
            f"**{version}**, served for `{asked}` (md5 `{md5}`)",
            f"policy {sidecar.name}: {', '.join(sidecar.labels)}",
            f"its own thresholds: {thresholds}",
            f"on validation: {metrics}",
            f"trained by code {sidecar.code[:12]}",
        ]
    )


@app_commands.guild_only()
@app_commands.default_permissions(manage_messages=True)
class Model(commands.GroupCog, group_name="model", group_description="The model that is served"):
    """`show` for moderators, `reload` for the bot's owner: one model serves all servers."""

    def __init__(self, bot: commands.AutoShardedBot, services: Services) -> None:
        self._bot = bot
        self._services = services

    @app_commands.command(name="show", description="Show which model judges the pictures")
    @app_commands.checks.has_permissions(manage_messages=True)
    async def show(self, interaction: Interaction) -> None:
        serving = self._services.serving
        served = serving.current
        text = described(served.release.version, served.release.md5, serving.asked, served.predictor.sidecar)
        await answer(interaction, text[:2000])

    @app_commands.command(name="reload", description="Take up the model that the tag names now (the bot's owner only)")
    async def reload(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        if not await self._bot.is_owner(_user(interaction)):
            raise app_commands.CheckFailure("Only the bot's owner may: one model serves all servers.")
        changed = await self._services.serving.reload()
        text = "is served from now on" if changed else "is served already"
        await answer(interaction, f"**{self._services.serving.version}** {text}.")


def _user(interaction: Interaction) -> discord.User:
    user = interaction.user
    return user if isinstance(user, discord.User) else user._user
