"""The button that undoes a decision on a picture. It works after restarts."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Self

import discord

from bot.services import services_of
from bot.storage.database import StoreError

log = logging.getLogger(__name__)

MAX_BUTTONS = 5
"""Below one entry."""


class UndoButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"undo:(?P<channel>[0-9]{1,20}):(?P<sha256>[0-9a-f]{64})",
):
    """Forgets what was decided on a picture: the model judges it again. What was deleted stays deleted."""

    def __init__(self, channel_id: int, sha256: str, suffix: str = "") -> None:
        self.channel_id, self.sha256 = channel_id, sha256
        label = f"Undo: forget this picture {suffix}".strip()
        custom_id = f"undo:{channel_id}:{sha256}"
        super().__init__(discord.ui.Button(label=label, style=discord.ButtonStyle.secondary, custom_id=custom_id))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(int(match["channel"]), match["sha256"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator clicked."""
        moderator, services = interaction.user, services_of(interaction)
        await interaction.response.defer()
        if not isinstance(moderator, discord.Member):
            return
        channel = moderator.guild.get_channel_or_thread(self.channel_id)
        held = channel.permissions_for(moderator) if channel else moderator.guild_permissions
        if not held.manage_messages:
            text = "No action taken: you need the Manage Messages permission in that channel."
            await interaction.followup.send(text, ephemeral=True)
            return
        try:
            forgotten = await services.rulings.forget(moderator.guild.id, self.sha256)
        except StoreError as error:
            services.metrics.errors.labels("store").inc()
            await interaction.followup.send(f"No action taken: {error}. Try again.", ephemeral=True)
            return
        if not forgotten:
            text = "There is no decision on this picture any more: it was undone before, or is too old."
            await interaction.followup.send(text, ephemeral=True)
            return
        log.info("a decision on a picture was undone", extra={"sha256": self.sha256, "moderator": moderator.id})
        entry = interaction.message
        assert entry is not None  # noqa: S101 - a button is below a message
        embed = entry.embeds[0] if entry.embeds else discord.Embed()
        embed.add_field(name="Undone", value=f"By {moderator.mention}. The model judges this picture again.")
        await interaction.edit_original_response(embed=embed, view=_without(entry, f":{self.sha256}"))


def undo_view(channel_id: int, pictures: Sequence[str]) -> discord.ui.View | None:
    """A button for each of some pictures, by SHA-256; None if there are none.

    `channel_id` is where the message was: whoever may delete messages there may undo.
    """
    view = discord.ui.View(timeout=None)
    several = len(pictures) > 1
    for number, sha256 in enumerate(pictures[:MAX_BUTTONS], 1):
        view.add_item(UndoButton(channel_id, sha256, str(number) if several else ""))
    return view if pictures else None


def _without(entry: discord.Message, ending: str) -> discord.ui.View | None:
    """The buttons of an entry but for the one that was clicked."""
    view = discord.ui.View.from_message(entry, timeout=None)
    for item in list(view.children):
        if str(getattr(item, "custom_id", "")).endswith(ending):
            view.remove_item(item)
    return view if view.children else None
