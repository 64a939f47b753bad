"""Telling an author what was done to their message and why, with a button to appeal. Never a score or a threshold."""

from __future__ import annotations

import logging
import re
from typing import Any, Self

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error
from bot.rules.policy import Action, GuildPolicy
from bot.services import Services, services_of
from bot.storage.appeals import MAX_APPEALS_A_DAY
from bot.storage.database import StoreError
from bot.storage.tables import TOLD, Appeal

log = logging.getLogger(__name__)

MAX_TEXT = 500
"""Characters of an appeal."""
FORM = re.compile(r"appeal:text:(?P<message>[0-9]{1,20})")
"""Custom id of the form. Open forms hold it: never change it."""
RESULTS = {
    Action.SPOILER: "so it was reposted behind a spoiler",
    Action.DELETE: "so it was deleted",
    Action.TIMEOUT: "so it was deleted and you were timed out for a while",
}
NO_RECORD = "There is no record of this decision any more."
ALREADY = "You have appealed this decision before. You can do so once."
TOO_OFTEN = f"You have appealed {MAX_APPEALS_A_DAY} times within a day. Try again tomorrow."
AWAY = "That did not work. Try again in some minutes."


async def tell_author(
    services: Services, client: discord.Client, guild: discord.Guild, policy: GuildPolicy, appeal: Appeal
) -> None:
    """Tell an author by direct message, once for each message, if the server wants that. Never raises.

    If they take no direct messages, they are not told.
    """
    if not policy.tell_author or Action(appeal.action) not in RESULTS:
        return
    try:
        if not await services.appeals.begin(appeal):
            return
        if not await send_dm(client, appeal.user_id, describe_notice(appeal, guild), appeal_view(appeal.message_id)):
            await services.appeals.withdraw(appeal.message_id)
    except StoreError:
        services.metrics.errors.labels("store").inc()


def describe_notice(appeal: Appeal, guild: discord.Guild) -> str:
    """What was done, where, and by which rule."""
    server, label = (discord.utils.escape_markdown(text) for text in (guild.name, appeal.label))
    return (
        f"Your message in **{server}** (<#{appeal.channel_id}>) has a picture that matches this server's rule "
        f"**{label}**, {RESULTS[Action(appeal.action)]}.\nIf this is a mistake, you can appeal once: moderators then "
        "look at it again."
    )


async def send_dm(client: discord.Client, user_id: int, text: str, view: discord.ui.View | None = None) -> bool:
    """Send a direct message. Returns whether that succeeded. Never raises."""
    more: dict[str, Any] = {"view": view} if view else {}
    try:
        channel = await client.create_dm(discord.Object(user_id))
        await channel.send(text, allowed_mentions=discord.AllowedMentions.none(), **more)
    except DISCORD_ERRORS as error:
        log.info("could not write to an author: %s", describe_error(error))
        return False
    return True


def appeal_view(message_id: int) -> discord.ui.View:
    """The button below a notice."""
    view = discord.ui.View(timeout=None)
    view.add_item(AppealButton(message_id))
    return view


class AppealButton(discord.ui.DynamicItem[discord.ui.Button[Any]], template=r"appeal:ask:(?P<message>[0-9]{1,20})"):
    """Opens the form. It works after restarts."""

    def __init__(self, message_id: int) -> None:
        custom_id = f"appeal:ask:{message_id}"
        super().__init__(discord.ui.Button(label="Appeal", style=discord.ButtonStyle.secondary, custom_id=custom_id))
        self.message_id = message_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(int(match["message"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """The author clicked: ask for their reasons, or say why not."""
        if problem := await appeal_problem(services_of(interaction), self.message_id, interaction.user.id):
            await interaction.response.send_message(problem, ephemeral=True)
        else:
            await interaction.response.send_modal(AppealForm(self.message_id))


class AppealForm(discord.ui.Modal):
    """Asks for an author's reasons. `bot.commands.appealing` takes the answer, so that it arrives after a restart."""

    def __init__(self, message_id: int) -> None:
        super().__init__(title="Appeal", custom_id=f"appeal:text:{message_id}")
        self.add_item(
            discord.ui.TextInput(
                label="Why was this a mistake? (optional)",
                custom_id="text",
                style=discord.TextStyle.paragraph,
                required=False,
                max_length=MAX_TEXT,
            )
        )

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Leave the answer to the listener."""


async def appeal_problem(services: Services, message_id: int, user_id: int) -> str:
    """Why a user cannot appeal the decision on a message, or nothing."""
    try:
        appeal = await services.appeals.find(message_id) if message_id < 2**63 else None
        if appeal is None or appeal.user_id != user_id:
            return NO_RECORD
        if appeal.state != TOLD:
            return ALREADY
        return "" if await services.appeals.may_appeal(user_id) else TOO_OFTEN
    except StoreError:
        services.metrics.errors.labels("store").inc()
        return AWAY
