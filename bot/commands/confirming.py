"""Asking before something far-reaching is done. Whoever clicks needs the rights that the command needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import discord
from discord import app_commands

from bot.commands.answering import Interaction, answer, report_error

CONFIRM_SECONDS = 300.0
"""After this, the button does nothing any more."""
NOT_YOURS = "Only the person who used the command can click here."


class AskersView(discord.ui.View):
    """A view for the person who used a command, who needs the same permissions again at each click.

    They may have lost them since: Discord goes on showing the buttons.
    """

    def __init__(self, asker_id: int, timeout: float, **permissions: bool) -> None:
        super().__init__(timeout=timeout)
        self._asker_id = asker_id
        self._permissions = permissions

    async def interaction_check(self, interaction: Interaction, /) -> bool:
        """Refuse the click of anyone else, and of those who have lost a permission; say why."""
        refusal: app_commands.CheckFailure | None = None
        held = interaction.permissions  # as Discord sent them with this click
        if interaction.user.id != self._asker_id:
            refusal = app_commands.CheckFailure(NOT_YOURS)
        elif missing := [name for name in self._permissions if not getattr(held, name)]:
            refusal = app_commands.MissingPermissions(missing)
        if refusal is not None:
            await report_error(interaction, refusal)
        return refusal is None

    async def on_error(self, interaction: Interaction, error: Exception, _item: discord.ui.Item[Any]) -> None:
        """Answer as for a command."""
        await report_error(interaction, error)


class Confirmation(AskersView):
    """A question with one button, which does what was asked for."""

    def __init__(
        self, asker_id: int, label: str, action: Callable[[Interaction], Awaitable[None]], **permissions: bool
    ) -> None:
        super().__init__(asker_id, CONFIRM_SECONDS, **permissions)
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


async def confirm(
    interaction: Interaction,
    question: str,
    label: str,
    action: Callable[[Interaction], Awaitable[None]],
    **permissions: bool,
) -> None:
    """Ask the asker alone.

    Args:
        interaction: the command.
        question: what would happen.
        label: of the button.
        action: called with the click, which it answers.
        permissions: what the asker needs in the channel at the click, as `manage_guild=True`.
    """
    await answer(interaction, question, view=Confirmation(interaction.user.id, label, action, **permissions))
