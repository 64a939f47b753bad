"""Asking before something far-reaching is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import discord

from bot.commands.answering import Interaction, answer, report_error

CONFIRM_SECONDS = 300.0
"""After this, the button does nothing any more."""


class Confirmation(discord.ui.View):
    """A question with one button, which does what was asked for."""

    def __init__(self, label: str, action: Callable[[Interaction], Awaitable[None]]) -> None:
        super().__init__(timeout=CONFIRM_SECONDS)
        self._action = action
        button: discord.ui.Button[Any] = discord.ui.Button(label=label, style=discord.ButtonStyle.danger)
        button.callback = self._confirmed  # type: ignore[method-assign]
        self.add_item(button)

    async def _confirmed(self, interaction: Interaction) -> None:
        if self.is_finished():
            return
        self.stop()  # a second click must not do it again
        await interaction.response.defer(ephemeral=True)  # the database may be slow
        await self._action(interaction)

    async def on_error(self, interaction: Interaction, error: Exception, _item: discord.ui.Item[Any]) -> None:
        """Answer as for a command."""
        await report_error(interaction, error)


async def confirm(
    interaction: Interaction, question: str, label: str, action: Callable[[Interaction], Awaitable[None]]
) -> None:
    """Ask the asker alone; `action` is called with the click of the button `label`, and answers it."""
    await answer(interaction, question, view=Confirmation(label, action))
