"""The review buttons below a mod-log entry. They work after restarts."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, retry
from bot.actions.execution import time_out
from bot.rules.policy import Action
from bot.services import Services, services_of
from bot.storage.database import StoreError
from bot.storage.tables import APPROVED, DELETED, TIMED_OUT, WRONG, Decision, Ruling, decisions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReviewChoice:
    """One button: what it says, the state that it gives a decision, and how that reads afterwards."""

    label: str
    state: str
    participle: str
    style: discord.ButtonStyle
    allows: bool
    """Whether the picture is let through from now on; otherwise it is deleted."""


CHOICES = {
    "approve": ReviewChoice("Approve", APPROVED, "approved", discord.ButtonStyle.success, True),
    "delete": ReviewChoice("Delete", DELETED, "deleted", discord.ButtonStyle.danger, False),
    "timeout": ReviewChoice("Delete and time out", TIMED_OUT, "deleted", discord.ButtonStyle.danger, False),
    "wrong": ReviewChoice("Wrong verdict", WRONG, "marked as a wrong verdict", discord.ButtonStyle.secondary, True),
}
"""By the word in a button's custom id. Posted entries hold these ids: never change them."""
PARTICIPLES = {choice.state: choice.participle for choice in CHOICES.values()}


class NotCarriedOutError(Exception):
    """Why a moderator's choice could not be carried out: a clause."""


def review_buttons(channel_id: int, message_id: int) -> discord.ui.View:
    """The buttons of an entry about a message."""
    view = discord.ui.View(timeout=None)
    for name in CHOICES:
        view.add_item(ReviewButton(name, channel_id, message_id))
    return view


class ReviewButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"review:(?P<choice>approve|delete|timeout|wrong):(?P<channel>[0-9]{1,20}):(?P<message>[0-9]{1,20})",
):
    """A button whose custom id holds all that it needs, so that it needs no memory of the entry."""

    def __init__(self, name: str, channel_id: int, message_id: int) -> None:
        choice = CHOICES[name]
        custom_id = f"review:{name}:{channel_id}:{message_id}"
        super().__init__(discord.ui.Button(label=choice.label, style=choice.style, custom_id=custom_id))
        self.name, self.choice = name, choice
        self.channel_id, self.message_id = channel_id, message_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(match["choice"], int(match["channel"]), int(match["message"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator clicked: answer only if nothing was done, for otherwise the entry shows it."""
        services = services_of(interaction)
        await interaction.response.defer()  # Discord waits only 3 s for the first response
        failure = ""
        try:
            await self._decide(services, interaction)
        except NotCarriedOutError as error:
            failure = f"No action taken: {error}."
        except StoreError as error:
            services.metrics.errors.labels("store").inc()
            failure = f"No action taken: {error}. Try again."
        services.metrics.reviews.labels(self.name, "refused" if failure else "done").inc()
        if failure:
            await interaction.followup.send(failure, ephemeral=True)

    async def _decide(self, services: Services, interaction: discord.Interaction[Any]) -> None:
        """Carry out the choice, once.

        Raises:
            NotCarriedOutError: if it is not the clicker's to make, was made already, or Discord refuses.
            StoreError: if the database is away.
        """
        moderator = interaction.user
        if interaction.guild is None or not isinstance(moderator, discord.Member):
            raise NotCarriedOutError("this works only in a server")
        # Discord shows the buttons to everyone who can read the mod-log.
        if missing := _missing_for(moderator, self.channel_id, self.name):
            raise NotCarriedOutError(f"you need the {missing} permission in that channel")
        store, state = services.store, self.choice.state
        # Claimed before anything is done: of two moderators who click at once, one gets False here.
        if not await store.settle(self.message_id, state, moderator.id):
            raise NotCarriedOutError(await self._already_decided(services))
        settled = await store.decisions(
            decisions.c.message_id == self.message_id, decisions.c.guild_id == interaction.guild.id
        )
        try:
            note = await self._carry_out(services, interaction.client, moderator, settled)
        except NotCarriedOutError:
            await store.reopen(self.message_id, state)
            raise
        await self._remember(services, settled)
        ids = {"message_id": self.message_id, "state": state, "moderator": moderator.id}
        log.info("a moderator decided", extra=ids)
        text = f"{self.choice.participle} by {moderator.mention}"
        await _close_entry(interaction, f"{as_sentence(text)} {as_sentence(note)}".strip())

    async def _already_decided(self, services: Services) -> str:
        rows = await services.store.decisions(decisions.c.message_id == self.message_id)
        decided = next((row for row in rows if row.moderator_id), None)
        if decided is None:
            return "there is no record of this message any more"
        return f"already {PARTICIPLES.get(decided.state, decided.state)} by <@{decided.moderator_id}>"

    async def _carry_out(
        self, services: Services, client: discord.Client, moderator: discord.Member, settled: Sequence[Decision]
    ) -> str:
        """Do what the choice asks for. Returns a note about the time-out, or nothing.

        Raises:
            NotCarriedOutError: if the message could not be deleted.
        """
        author_id = next((decision.user_id for decision in settled if decision.user_id), None)
        author = await _fetch_member(moderator.guild, author_id)
        if self.choice.allows:
            # A moderator may have timed the author out for something else; that stays.
            timed_out_by_bot = any(decision.done == Action.TIMEOUT for decision in settled)
            if author and author.is_timed_out() and timed_out_by_bot:
                return await _lift_time_out(author, f"{moderator} approved the picture")
            return ""
        await self._delete_message(client, moderator.guild)
        if self.choice.state != TIMED_OUT:
            return ""
        if author is None:
            return "time-out failed: the author has left the server"
        if author.top_role >= moderator.top_role and moderator.guild.owner_id != moderator.id:
            return "time-out failed: the author's role ranks as high as yours"
        policy = await services.store.policy(moderator.guild.id)
        return await time_out(author, policy, f"by {moderator}") or "author timed out"

    async def _delete_message(self, client: discord.Client, guild: discord.Guild) -> None:
        channel = client.get_partial_messageable(self.channel_id, guild_id=guild.id)
        try:
            await retry(channel.get_partial_message(self.message_id).delete)
        except discord.NotFound:
            pass  # the bot or the author deleted it before
        except DISCORD_ERRORS as error:
            raise NotCarriedOutError(describe_error(error)) from error

    async def _remember(self, services: Services, settled: Sequence[Decision]) -> None:
        """Apply the choice to the same pictures in the future, in this server."""
        for decision in settled:
            # Harmless pictures of the same message were never open; others were not even downloaded.
            if decision.state == self.choice.state and decision.sha256 and decision.phash is not None:
                await services.rulings.add(
                    Ruling(
                        guild_id=decision.guild_id,
                        sha256=decision.sha256,
                        phash=decision.phash,
                        allowed=self.choice.allows,
                        label=decision.label,
                        created_at=services.store.now(),
                    )
                )


def _missing_for(moderator: discord.Member, channel_id: int, name: str) -> str:
    """The permission that a moderator lacks to make a choice, or nothing."""
    # In the message's channel, where the moderator could delete it by hand; it may be gone by now.
    channel = moderator.guild.get_channel_or_thread(channel_id)
    held = channel.permissions_for(moderator) if channel else moderator.guild_permissions
    if not held.manage_messages:
        return "Manage Messages"
    if name == "timeout" and not moderator.guild_permissions.moderate_members:
        return "Moderate Members"
    return ""


async def _lift_time_out(member: discord.Member, reason: str) -> str:
    """End a member's time-out. Returns what came of it."""
    try:
        await retry(lambda: member.timeout(None, reason=reason))
    except DISCORD_ERRORS as error:
        return f"the time-out could not be lifted: {describe_error(error)}"
    return "time-out lifted"


async def _fetch_member(guild: discord.Guild, user_id: int | None) -> discord.Member | None:
    if user_id is None:
        return None
    try:
        return guild.get_member(user_id) or await guild.fetch_member(user_id)
    except discord.HTTPException:
        return None


async def _close_entry(interaction: discord.Interaction[Any], text: str) -> None:
    """Write the decision into the entry and remove its buttons."""
    assert interaction.message is not None  # noqa: S101 - a button is below a message
    embed = interaction.message.embeds[0] if interaction.message.embeds else discord.Embed()
    embed.colour = discord.Colour.dark_grey()
    embed.add_field(name="Moderator", value=text[:1000], inline=False)
    await interaction.edit_original_response(embed=embed, view=None)
