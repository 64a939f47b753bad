"""The model that is serving, and reloading it."""

from __future__ import annotations

import discord
from discord import app_commands
from discord.ext import commands

from bot.commands.answering import Interaction, answer
from bot.model.serving import Serving
from bot.services import Services
from stages.inference.sidecar import Sidecar

METRIC_NAMES = {"auroc": "AUROC"}
"""Names of metrics that are not just words joined by underscores."""


def describe_model(serving: Serving) -> str:
    """The model's version and origin, its policy, thresholds and validation metrics."""
    release, sidecar = serving.current.release, serving.current.predictor.sidecar
    thresholds = ", ".join(f"{label} from {value:.3f}" for label, value in sidecar.thresholds.items())
    return "\n".join(
        [
            f"**{release.version}**, serving `{serving.asked}` (md5 `{release.md5}`)",
            f"policy {sidecar.name}: {', '.join(sidecar.labels)}",
            f"default thresholds: {thresholds}",
            *_validation_metrics(sidecar),
            f"trained with code {sidecar.code[:12]}",
        ]
    )


def _validation_metrics(sidecar: Sidecar) -> list[str]:
    metrics = ", ".join(
        f"{METRIC_NAMES.get(name, name.replace('_', ' '))} {value:.3f}" for name, value in sidecar.metrics.items()
    )
    return [f"validation {metrics}"] if metrics else []


@app_commands.guild_only()
@app_commands.default_permissions(manage_messages=True)
class ModelCommands(commands.GroupCog, group_name="model", group_description="The model that checks the pictures"):
    """`show` is for moderators, `reload` for the bot's owner: one model serves all servers."""

    def __init__(self, bot: commands.AutoShardedBot, services: Services) -> None:
        self._bot = bot
        self._services = services

    @app_commands.command(name="show", description="Show the model that is serving")
    @app_commands.checks.has_permissions(manage_messages=True)
    async def show(self, interaction: Interaction) -> None:
        await answer(interaction, describe_model(self._services.serving))

    @app_commands.command(name="reload", description="Load the model that the tag points to now (bot owner only)")
    async def reload(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)  # fetching a model takes more than the 3 s that Discord waits
        if not await self._bot.is_owner(_as_user(interaction)):
            raise app_commands.CheckFailure("Only the bot's owner can reload the model, which serves all servers.")
        changed = await self._services.serving.reload()
        text = "is serving now" if changed else "was serving already"
        await answer(interaction, f"**{self._services.serving.version}** {text}.")


def _as_user(interaction: Interaction) -> discord.User:
    """The asker as the type that discord.py's `is_owner` takes."""
    user = interaction.user
    return user if isinstance(user, discord.User) else user._user
