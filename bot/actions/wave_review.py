"""The buttons below an entry about a wave. They work after restarts."""

from __future__ import annotations

import logging
import re
from typing import Any, Protocol, Self

import discord

from bot.actions.review import NotCarriedOutError
from bot.rules.policy import Action
from bot.services import services_of
from bot.storage.database import StoreError

log = logging.getLogger(__name__)

BUTTONS = {
    "delete": ("Delete all", discord.ButtonStyle.danger),
    "timeout": ("Delete all and time out", discord.ButtonStyle.danger),
    "leave": ("Leave", discord.ButtonStyle.secondary),
    "undo": ("Undo", discord.ButtonStyle.secondary),
}
"""By the word in a button's custom id. Posted entries hold these ids: never change them."""


class DecidesWaves(Protocol):
    """`bot.actions.shielding.Shield`, which posts the buttons, without importing it."""

    async def decide(self, wave_id: str, choice: str, moderator: discord.Member, entry: discord.Message | None) -> None:
        """Carry out a moderator's choice, once."""


class HasShield(Protocol):
    """A Discord client with a shield: `bot.client.Bot`, without importing it."""

    @property
    def shield(self) -> DecidesWaves:
        """That of the running bot."""


class WaveButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"wave:(?P<choice>delete|timeout|leave|undo):(?P<wave>[0-9a-f]{32})",
):
    """A button whose custom id names its wave, so that it needs no memory of the entry."""

    def __init__(self, choice: str, wave_id: str) -> None:
        label, style = BUTTONS[choice]
        super().__init__(discord.ui.Button(label=label, style=style, custom_id=f"wave:{choice}:{wave_id}"))
        self.choice, self.wave_id = choice, wave_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(match["choice"], match["wave"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator clicked: answer only if nothing was done, for otherwise the entry shows it."""
        services = services_of(interaction)
        await interaction.response.defer()  # Discord waits only 3 s for the first response
        client: HasShield = interaction.client
        failure = ""
        try:
            if not isinstance(interaction.user, discord.Member):
                raise NotCarriedOutError("this works only in a server")
            await client.shield.decide(self.wave_id, self.choice, interaction.user, interaction.message)
        except NotCarriedOutError as error:
            failure = f"No action taken: {error}."
        except StoreError as error:
            services.metrics.errors.labels("store").inc()
            failure = f"No action taken: {error}. Try again."
        services.metrics.reviews.labels(f"wave {self.choice}", "refused" if failure else "done").inc()
        if failure:
            await interaction.followup.send(failure, ephemeral=True)


def wave_view(wave_id: str, action: int) -> discord.ui.View:
    """The buttons of an entry about a wave. `action`: what was done about it."""
    view = discord.ui.View(timeout=None)
    for choice in ("undo",) if action > Action.FLAG else ("delete", "timeout", "leave"):
        view.add_item(WaveButton(choice, wave_id))
    return view
