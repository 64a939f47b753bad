"""No commands: takes the forms in which authors appeal, also those that were opened before a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import discord
from discord.ext import commands

from bot.actions.appeals import AppealPost
from bot.actions.notices import ALREADY, AWAY, FORM, MAX_TEXT, appeal_problem
from bot.commands.answering import Interaction
from bot.services import Services
from bot.storage.database import StoreError

SENT_TEXT = "Your appeal is on its way to the server's moderators. You will be told what they decide."


class Appealing(commands.Cog):
    """Listens for forms."""

    def __init__(self, services: Services, post: AppealPost) -> None:
        self._services = services
        self._post = post

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """An author sent the form. discord.py itself forgets forms when the bot restarts."""
        data: Mapping[str, Any] = interaction.data or {}
        if interaction.type is not discord.InteractionType.modal_submit:
            return
        if match := FORM.fullmatch(str(data.get("custom_id", ""))):
            await interaction.response.defer()
            await self._take(interaction, int(match["message"]), _text_in(data))

    async def _take(self, interaction: Interaction, message_id: int, text: str) -> None:
        # All is checked again: the form may have been open for a long time.
        problem = await appeal_problem(self._services, message_id, interaction.user.id)
        try:
            if not problem and not await self._services.appeals.send(message_id, interaction.user.id, text):
                problem = ALREADY
        except StoreError:
            self._services.metrics.errors.labels("store").inc()
            problem = AWAY
        if not problem:
            await interaction.edit_original_response(view=None)
        await interaction.followup.send(problem or SENT_TEXT, ephemeral=True)
        await self._post.run()


def _text_in(data: Mapping[str, Any]) -> str:
    """What was written into the form."""
    return next((text[:MAX_TEXT] for text in _values(data.get("components"), 5)), "")


def _values(components: Any, depth: int) -> Iterator[str]:
    """The texts of inputs, wherever they are nested."""
    for component in components if isinstance(components, list) and depth else []:
        if isinstance(component, Mapping):
            if isinstance(component.get("value"), str):
                yield component["value"]
            yield from _values(component.get("components"), depth - 1)
            yield from _values([component.get("component")], depth - 1)
