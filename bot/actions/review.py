"""The review buttons below a mod-log entry. They work after restarts."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, retry
from bot.actions.execution import time_out
from bot.actions.members import fetch_member, lift_time_out
from bot.actions.notices import tell_author
from bot.actions.picking import (
    REST,
    ListedPicture,
    describe_choice,
    listed_pictures,
    name_pictures,
    named_pictures,
    needs_menu,
    waiting_pictures,
)
from bot.actions.striking import strike
from bot.actions.undoing import undo_view
from bot.rules.policy import Action
from bot.services import Services, services_of
from bot.storage.database import StoreError
from bot.storage.tables import APPROVED, DELETED, OPEN, TIMED_OUT, WRONG, Appeal, Decision, Ruling, decisions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReviewChoice:
    """One button: what it says, the state that it gives a decision, and how that reads afterwards."""

    label: str
    state: str
    participle: str
    style: discord.ButtonStyle
    allows: bool
    """Whether the message stays; otherwise it is deleted."""
    remembers: bool = True
    """Whether the same picture, and copies of it, are decided like this from now on."""


CHOICES = {
    "approve": ReviewChoice("Approve this message", APPROVED, "approved", discord.ButtonStyle.success, True, False),
    "delete": ReviewChoice("Delete", DELETED, "deleted", discord.ButtonStyle.danger, False),
    "timeout": ReviewChoice("Delete and time out", TIMED_OUT, "deleted", discord.ButtonStyle.danger, False),
    "wrong": ReviewChoice(
        "Wrong verdict: allow picture", WRONG, "marked as a wrong verdict", discord.ButtonStyle.secondary, True
    ),
}
"""By the word in a button's custom id. Posted entries hold these ids: never change them."""
AUTHOR_FIELD, MODERATOR_FIELD = "Author", "Moderator"
"""Fields of an entry. Posted entries have them: never change them."""
REMEMBERED = {choice.state for choice in CHOICES.values() if choice.remembers}
"""States of decisions that hold for copies of the picture, too."""
PARTICIPLES = {choice.state: choice.participle for choice in CHOICES.values()}


class NotCarriedOutError(Exception):
    """Why a moderator's choice could not be carried out: a clause."""


class ReviewButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"review:(?P<choice>approve|delete|timeout|wrong):(?P<channel>[0-9]{1,20}):(?P<message>[0-9]{1,20})"
    r"(?::(?P<names>m[0-9a-f.]{1,24}|k[a-z]{1,10}:[0-9a-f]{1,32}))?",
):
    """A button whose custom id names the pictures that a click decides, so that it needs no memory of the entry."""

    def __init__(self, name: str, channel_id: int, message_id: int, names: str = "", suffix: str = "") -> None:
        """`names`: as in `bot.actions.picking.named_pictures`. `suffix`: what the label says after the choice."""
        choice = CHOICES[name]
        custom_id = f"review:{name}:{channel_id}:{message_id}{f':{names}' if names else ''}"
        label = f"{choice.label} {suffix}".strip()
        super().__init__(discord.ui.Button(label=label, style=choice.style, custom_id=custom_id))
        self.name, self.choice = name, choice
        self.channel_id, self.message_id, self.names = channel_id, message_id, names

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(match["choice"], int(match["channel"]), int(match["message"]), match["names"] or "")

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
        if missing := missing_for(moderator, self.channel_id, self.name):
            raise NotCarriedOutError(f"you need the {missing} permission in that channel")
        pictures = await self._named_pictures(services, interaction)
        # Claimed before anything is done: of two moderators who click at once, one gets False here.
        if not await services.store.settle(self.message_id, self.choice.state, moderator.id, pictures):
            raise NotCarriedOutError(await self._already_decided(services, pictures))
        settled = [
            row
            for row in await self._decisions(services, pictures)
            if (row.state, row.moderator_id) == (self.choice.state, moderator.id)
        ]
        try:
            note = await self._carry_out(services, interaction, moderator, settled)
        except NotCarriedOutError:
            await services.store.reopen(self.message_id, self.choice.state, [row.picture for row in settled])
            raise
        await self._remember(services, settled, moderator, interaction.message)
        await self._tell_author(services, interaction, settled)
        # Only now: until here, the rows were needed to undo the click.
        await services.store.drop_forgotten(self.message_id)
        ids = {"message_id": self.message_id, "state": self.choice.state, "moderator": moderator.id}
        log.info("a moderator decided", extra=ids)
        text = as_sentence(f"{self.choice.participle} by {moderator.mention}")
        await self._update_entry(services, interaction, settled, f"{text} {as_sentence(note)}".strip())

    async def _tell_author(
        self, services: Services, interaction: discord.Interaction[Any], settled: Sequence[Decision]
    ) -> None:
        """Tell the author that a moderator deleted the message, if the server wants that."""
        author_id = next((row.user_id for row in settled if row.user_id), None)
        if self.choice.allows or author_id is None or interaction.guild is None:
            return
        appeal = Appeal(
            message_id=self.message_id,
            guild_id=interaction.guild.id,
            channel_id=self.channel_id,
            user_id=author_id,
            label=settled[0].label,
            action=Action.TIMEOUT if self.choice.state == TIMED_OUT else Action.DELETE,
            created_at=services.store.now(),
        )
        policy = await services.store.policy(interaction.guild.id)
        await tell_author(services, interaction.client, interaction.guild, policy, appeal)

    async def _named_pictures(
        self, services: Services, interaction: discord.Interaction[Any]
    ) -> Collection[str] | None:
        """The keys of the pictures that this button decides; None for all of the message.

        Raises:
            NotCarriedOutError: if the entry has changed since the moderator saw it.
        """
        if not self.names:
            return None
        named = named_pictures(self.names, listed_pictures(interaction.message))
        if named is None:
            raise NotCarriedOutError("this entry has changed meanwhile; choose again")
        if REST not in named:
            return named
        listed = {picture.key for picture in listed_pictures(interaction.message)}
        return named | {row.picture for row in await self._decisions(services, None) if row.picture not in listed}

    async def _decisions(self, services: Services, pictures: Collection[str] | None) -> list[Decision]:
        """The decisions on some pictures of the message; None for all."""
        rows = await services.store.decisions(decisions.c.message_id == self.message_id)
        return [row for row in rows if pictures is None or row.picture in pictures]

    async def _already_decided(self, services: Services, pictures: Collection[str] | None) -> str:
        rows = await self._decisions(services, pictures)
        decided = next((row for row in rows if row.moderator_id), None)
        if decided is None:
            return "there is no record of this message any more"
        return f"already {PARTICIPLES.get(decided.state, decided.state)} by <@{decided.moderator_id}>"

    async def _carry_out(
        self,
        services: Services,
        interaction: discord.Interaction[Any],
        moderator: discord.Member,
        settled: Sequence[Decision],
    ) -> str:
        """Do what the choice asks for. Returns a note about the time-out, or nothing.

        Raises:
            NotCarriedOutError: if the message could not be deleted.
        """
        # Of an author who had their data deleted, only the entry still has the id.
        author_id = next((row.user_id for row in settled if row.user_id), None) or author_in(interaction.message)
        if self.choice.allows:
            if not await self._was_timed_out_for_these(services, settled):
                return ""
            author, _ = await fetch_member(moderator.guild, author_id)
            if author is None or not author.is_timed_out():
                return ""
            return await lift_time_out(author, f"{moderator} approved the picture")
        await self._delete_message(services, interaction.client, moderator)
        said = ""
        if all(row.done < Action.DELETE for row in settled):  # otherwise it counted when the rules deleted it
            policy = await services.store.policy(moderator.guild.id)
            cause = f"deleted by {moderator}"
            said = await strike(services, moderator.guild, policy, author_id, self.message_id, cause)
        notes = [await self._time_out(services, moderator, author_id), said and f"strikes: {said.rstrip('.')}"]
        return ". ".join(filter(None, notes))

    async def _time_out(self, services: Services, moderator: discord.Member, author_id: int | None) -> str:
        """Time the author out if the choice asks for it. Returns what came of it: a clause, or nothing."""
        if self.choice.state != TIMED_OUT:
            return ""
        author, failure = await fetch_member(moderator.guild, author_id)
        if author is None:
            return f"time-out failed: {failure}"
        if author.top_role >= moderator.top_role and moderator.guild.owner_id != moderator.id:
            return "time-out failed: the author's role ranks as high as yours"
        policy = await services.store.policy(moderator.guild.id)
        return await time_out(author, policy, f"by {moderator}") or "author timed out"

    async def _was_timed_out_for_these(self, services: Services, settled: Sequence[Decision]) -> bool:
        """Whether the bot timed the author out, and for no picture that is not allowed by now.

        A moderator may have timed the author out for something else; that stays.
        """
        if not any(row.done == Action.TIMEOUT for row in settled):
            return False
        rows = await self._decisions(services, None)
        return all(row.state in (APPROVED, WRONG) for row in rows if row.action == Action.TIMEOUT)

    async def _delete_message(self, services: Services, client: discord.Client, moderator: discord.Member) -> None:
        """Delete the message, and the bot's repost of it. Discord's audit log names the moderator."""
        delete, reason = client.http.delete_message, f"by {moderator}"
        for message_id in filter(None, (self.message_id, await services.store.repost_of(self.message_id))):
            try:
                await retry(functools.partial(delete, self.channel_id, message_id, reason=reason))
            except discord.NotFound:
                pass  # the bot or the author deleted it before
            except DISCORD_ERRORS as error:
                raise NotCarriedOutError(describe_error(error)) from error

    async def _remember(
        self, services: Services, settled: Sequence[Decision], moderator: discord.Member, entry: discord.Message | None
    ) -> None:
        """Apply the choice to the same pictures and their copies in the future, in this server."""
        if not self.choice.remembers:
            return
        for decision in settled:
            if decision.sha256 and decision.phash is not None:  # others were not even downloaded
                await services.rulings.add(
                    Ruling(
                        guild_id=decision.guild_id,
                        sha256=decision.sha256,
                        phash=decision.phash,
                        allowed=self.choice.allows,
                        label=decision.label,
                        created_at=services.store.now(),
                        fingerprint=await services.store.find_fingerprint(decision.sha256),
                        moderator_id=moderator.id,
                        link=f"{moderator.guild.id}/{entry.channel.id}/{entry.id}" if entry else "",
                    )
                )

    async def _update_entry(
        self, services: Services, interaction: discord.Interaction[Any], settled: Sequence[Decision], text: str
    ) -> None:
        """Write the decision into the entry, and leave the buttons for the pictures that wait for one."""
        entry = interaction.message
        assert entry is not None  # noqa: S101 - a button is below a message
        listed = listed_pictures(entry)
        rows = await self._decisions(services, None)
        waiting = waiting_pictures(listed, {row.picture for row in rows if row.state == OPEN})
        embed = entry.embeds[0] if entry.embeds else discord.Embed()
        decided = {row.picture for row in settled}
        which = ", ".join(str(picture.number) for picture in listed if picture.key in decided)
        write_decision(embed, f"{which}: {text}" if which else text)
        if not waiting:
            embed.colour = discord.Colour.dark_grey()
        if waiting:
            view: discord.ui.View | None = review_view(self.channel_id, self.message_id, waiting)
        else:
            remembered = [row.sha256 for row in rows if row.state in REMEMBERED and row.sha256]
            view = undo_view(self.channel_id, list(dict.fromkeys(remembered)))
        await interaction.edit_original_response(embed=embed, view=view)


class PictureMenu(
    discord.ui.DynamicItem[discord.ui.Select[Any]],
    template=r"review:pick:(?P<channel>[0-9]{1,20}):(?P<message>[0-9]{1,20})",
):
    """The menu of an entry with several pictures: which of them the buttons decide."""

    def __init__(
        self, channel_id: int, message_id: int, pictures: Sequence[ListedPicture] = (), chosen: Collection[str] = ()
    ) -> None:
        self.channel_id, self.message_id = channel_id, message_id
        super().__init__(
            discord.ui.Select(
                custom_id=f"review:pick:{channel_id}:{message_id}",
                placeholder="Pictures to decide on",
                max_values=max(1, len(pictures)),
                options=[
                    discord.SelectOption(label=picture.title, value=picture.key, default=picture.key in chosen)
                    for picture in pictures
                ],
            )
        )

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the menu anew for each choice."""
        return cls(int(match["channel"]), int(match["message"]), listed_pictures(interaction.message))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator chose pictures: name them on the buttons."""
        moderator = interaction.user
        if not isinstance(moderator, discord.Member):
            return
        if missing := missing_for(moderator, self.channel_id, ""):
            text = f"No action taken: you need the {missing} permission in that channel."
            await interaction.response.send_message(text, ephemeral=True)
            return
        pictures = listed_pictures(interaction.message)
        view = review_view(self.channel_id, self.message_id, pictures, frozenset(self.item.values))
        await interaction.response.edit_message(view=view)


def review_view(
    channel_id: int, message_id: int, pictures: Sequence[ListedPicture], chosen: Collection[str] | None = None
) -> discord.ui.View:
    """The buttons of an entry about pictures of a message, and a menu if there are several.

    Args:
        channel_id: where the message is.
        message_id: of the message.
        pictures: those that wait for a decision.
        chosen: keys of those that a click decides; None for all.
    """
    view = discord.ui.View(timeout=None)
    chosen_keys = {picture.key for picture in pictures} if chosen is None else chosen
    names = name_pictures(pictures, chosen_keys)
    suffix = ""
    if needs_menu(pictures):
        suffix = describe_choice(pictures, chosen_keys)
        view.add_item(PictureMenu(channel_id, message_id, pictures, chosen_keys))
    for name in CHOICES:
        view.add_item(ReviewButton(name, channel_id, message_id, names, suffix))
    return view


def write_decision(embed: discord.Embed, text: str) -> None:
    """Add a line to the moderators' decisions in an entry."""
    for place, field in enumerate(embed.fields):
        if field.name == MODERATOR_FIELD:
            embed.set_field_at(place, name=MODERATOR_FIELD, value=f"{field.value}\n{text}"[:1000], inline=False)
            return
    embed.add_field(name=MODERATOR_FIELD, value=text[:1000], inline=False)


def missing_for(moderator: discord.Member, channel_id: int, name: str) -> str:
    """The permission that a moderator lacks to make a choice, or nothing."""
    # In the message's channel, where the moderator could delete it by hand; it may be gone by now.
    channel = moderator.guild.get_channel_or_thread(channel_id)
    held = channel.permissions_for(moderator) if channel else moderator.guild_permissions
    if not held.manage_messages:
        return "Manage Messages"
    if name == "timeout" and not moderator.guild_permissions.moderate_members:
        return "Moderate Members"
    return ""


def author_in(entry: discord.Message | None) -> int | None:
    """The author's id in a mod-log entry."""
    fields = entry.embeds[0].fields if entry and entry.embeds else []
    values = [field.value or "" for field in fields if field.name == AUTHOR_FIELD]
    found = re.search(r"\(([0-9]{1,20})\)$", values[0]) if values else None
    return int(found[1]) if found else None
