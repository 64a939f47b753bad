"""The review queue: an entry in the mod-log for each message found, with buttons that survive restarts."""

from __future__ import annotations

import io
import logging
import re
import secrets
from collections.abc import Sequence
from typing import Any, Self

import discord

from bot.actions.execution import UNDONE, Done, lacking, persisting, refusal, time_out
from bot.pictures.examining import Finding
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, Outcome
from bot.services import Services, services_of
from bot.storage.database import StoreError
from bot.storage.tables import APPROVED, DELETED, TIMED_OUT, WRONG, Decision, Ruling, decisions

log = logging.getLogger(__name__)

CHOICES = {
    "approve": (APPROVED, "approve", discord.ButtonStyle.success),
    "delete": (DELETED, "delete", discord.ButtonStyle.danger),
    "timeout": (TIMED_OUT, "delete and time out", discord.ButtonStyle.danger),
    "wrong": (WRONG, "wrong verdict", discord.ButtonStyle.secondary),
}
SAID = {APPROVED: "Approved", DELETED: "Deleted", TIMED_OUT: "Deleted, author timed out", WRONG: "Wrong verdict"}
SHOWN = 4
"""Thumbnails in an entry."""


class NothingDoneError(Exception):
    """Why a moderator's choice could not be carried out."""


def entry(
    message: discord.Message, findings: Sequence[Finding], outcome: Outcome, done: Done
) -> tuple[discord.Embed, list[discord.File]]:
    """What moderators are shown of a message: which pictures, why, and what was done."""
    embed = discord.Embed(
        title=f"{outcome.label} {outcome.score:.2f}",
        description="\n".join(_line(each) for each in findings)[:2000],
        colour=discord.Colour.orange(),
        timestamp=message.created_at,
    )
    embed.add_field(name="Author", value=f"{message.author.mention} ({message.author.id})")
    embed.add_field(name="Message", value=message.jump_url)
    embed.add_field(name="Done", value=_done(done), inline=False)
    embed.set_footer(text=findings[0].version)
    shown = [each.thumbnail for each in findings if each.thumbnail][:SHOWN]
    files = [discord.File(io.BytesIO(each), f"SPOILER_blurred-{place}.jpg") for place, each in enumerate(shown)]
    return embed, files


def _line(finding: Finding) -> str:
    kind, score = finding.reference.kind, finding.outcome.score
    if finding.verdict in UNJUDGED:
        return f"{kind}: **{finding.verdict}**, {UNJUDGED[finding.verdict]} ({finding.detail})"
    if finding.origin == "moderator":
        return f"{kind}: **{finding.outcome.label}**, {finding.detail}"
    line = f"{kind}: **{finding.outcome.label}** {score:.3f}"
    return line if finding.outcome.threshold is None else f"{line}, threshold {finding.outcome.threshold:.3f}"


def _done(done: Done) -> str:
    words = {
        Action.LOG: "nothing",
        Action.FLAG: "nothing: for you to look at",
        Action.SPOILER: "posted again behind a spoiler",
        Action.DELETE: "deleted",
        Action.TIMEOUT: "deleted, author timed out",
    }
    return f"{words[done.action]} ({done.detail})" if done.detail else words[done.action]


def buttons(channel: int, message: int) -> discord.ui.View:
    """The four buttons of an entry. Their ids say all, so that they work after a restart."""
    view = discord.ui.View(timeout=None)
    for choice in CHOICES:
        view.add_item(Choice(choice, channel, message))
    return view


async def post(
    message: discord.Message,
    findings: Sequence[Finding],
    outcome: Outcome,
    done: Done,
    policy: GuildPolicy,
) -> str:
    """Tell the moderators; why not, or nothing."""
    guild = message.guild
    assert guild is not None  # noqa: S101
    channel = guild.get_channel_or_thread(policy.modlog or 0)
    if not isinstance(channel, discord.TextChannel | discord.Thread):
        return "no mod-log channel is set: /channel modlog"
    if missing := lacking(channel, view_channel=True, send_messages=True, embed_links=True, attach_files=True):
        return f"{missing} (the mod-log)"
    role = guild.get_role(policy.moderators or 0) if outcome.ping else None
    nonce = secrets.randbits(64)  # Discord posts it once, however often it is asked

    async def send() -> None:
        embed, files = entry(message, findings, outcome, done)  # anew: a file is sent but once
        await channel.send(
            role.mention if role else None,
            embed=embed,
            files=files,
            view=buttons(message.channel.id, message.id),
            allowed_mentions=discord.AllowedMentions(everyone=False, users=False, roles=[role] if role else False),
            nonce=nonce,
        )

    try:
        await persisting(send)
    except UNDONE as error:
        return f"the mod-log did not take the entry: {refusal(error)}"
    return ""


class Choice(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"review:(?P<choice>approve|delete|timeout|wrong):(?P<channel>[0-9]{1,20}):(?P<message>[0-9]{1,20})",
):
    """A button of an entry."""

    def __init__(self, choice: str, channel: int, message: int) -> None:
        _, label, style = CHOICES[choice]
        custom_id = f"review:{choice}:{channel}:{message}"
        super().__init__(discord.ui.Button(label=label, style=style, custom_id=custom_id))
        self.choice, self.channel, self.message = choice, channel, message

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Made anew for each click, from the button's id alone."""
        return cls(match["choice"], int(match["channel"]), int(match["message"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator clicked."""
        services = services_of(interaction)
        await interaction.response.defer()
        try:
            result = await self._decide(services, interaction)
        except StoreError as error:
            services.metrics.errors.labels("store").inc()
            result = f"Nothing was done: {error}. Try again."
        services.metrics.reviews.labels(self.choice, "refused" if result else "done").inc()
        if result:
            await interaction.followup.send(result, ephemeral=True)

    async def _decide(self, services: Services, interaction: discord.Interaction[Any]) -> str:
        """Do what was clicked, once; what the moderator is told, or nothing if the entry says it."""
        guild, moderator = interaction.guild, interaction.user
        if guild is None or not isinstance(moderator, discord.Member):
            return "Nothing was done: only in a server."
        if missing := _missing(guild, self.channel, moderator, self.choice):
            return f"Nothing was done: you lack {missing} there."
        state = CHOICES[self.choice][0]
        if not await services.store.settle(self.message, state, moderator.id):
            return await self._late(services)
        found = await services.store.decisions(decisions.c.message_id == self.message, decisions.c.guild_id == guild.id)
        try:
            problem = await self._act(services, interaction, moderator, found)
        except NothingDoneError as error:
            await services.store.reopen(self.message, state)
            return f"Nothing was done: {error}"
        for each in found:
            if each.state == state and each.sha256 and each.phash is not None:
                allowed = state in (APPROVED, WRONG)
                await services.rulings.add(
                    Ruling(guild.id, each.sha256, each.phash, allowed, each.label, services.store.now())
                )
        log.info("a moderator decided", extra={"message_id": self.message, "state": state, "moderator": moderator.id})
        await self._close(interaction, f"{SAID[state]} by {moderator.mention}" + (f" ({problem})" if problem else ""))
        return ""

    async def _late(self, services: Services) -> str:
        found = await services.store.decisions(decisions.c.message_id == self.message)
        states = [each for each in found if each.moderator_id]
        if not states:
            return "Nothing was done: nothing is kept of this message any more."
        return f"<@{states[0].moderator_id}> was faster: {SAID.get(states[0].state, states[0].state)}."

    async def _act(
        self,
        services: Services,
        interaction: discord.Interaction[Any],
        moderator: discord.Member,
        found: Sequence[Decision],
    ) -> str:
        """Do it; what of it was not done, or nothing.

        Raises:
            NothingDoneError: if all of it was not.
        """
        guild = moderator.guild
        authors = {each.user_id for each in found if each.user_id}
        member = await _member(guild, next(iter(authors), None))
        if self.choice in ("approve", "wrong"):
            if member and member.is_timed_out() and any(each.done == Action.TIMEOUT for each in found):
                return await _lift(member, f"{moderator} approved the picture")
            return ""
        target = interaction.client.get_partial_messageable(self.channel, guild_id=guild.id).get_partial_message(
            self.message
        )
        try:
            await persisting(target.delete)
        except discord.NotFound:
            pass
        except UNDONE as error:
            raise NothingDoneError(refusal(error)) from error
        if self.choice != "timeout":
            return ""
        if member is None:
            return "no time-out: the author has left"
        if member.top_role >= moderator.top_role and guild.owner_id != moderator.id:
            return "no time-out: the author ranks as high as you"
        return await time_out(member, await services.store.policy(guild.id), f"by {moderator}")

    async def _close(self, interaction: discord.Interaction[Any], text: str) -> None:
        """Say in the entry what was decided, and take its buttons away."""
        assert interaction.message is not None  # noqa: S101
        embed = interaction.message.embeds[0] if interaction.message.embeds else discord.Embed()
        embed.colour = discord.Colour.dark_grey()
        embed.add_field(name="Moderator", value=text, inline=False)
        await interaction.edit_original_response(embed=embed, view=None)


def _missing(guild: discord.Guild, channel: int, moderator: discord.Member, choice: str) -> str:
    """What a moderator lacks to decide, in words."""
    where = guild.get_channel_or_thread(channel)
    held = where.permissions_for(moderator) if where else moderator.guild_permissions
    if not held.manage_messages:
        return "Manage Messages"
    if choice == "timeout" and not moderator.guild_permissions.moderate_members:
        return "Moderate Members"
    return ""


async def _lift(member: discord.Member, reason: str) -> str:
    """Take a time-out back; why not, or nothing."""
    try:
        await persisting(lambda: member.timeout(None, reason=reason))
    except UNDONE as error:
        return f"the time-out stays: {refusal(error)}"
    return ""


async def _member(guild: discord.Guild, user: int | None) -> discord.Member | None:
    if user is None:
        return None
    try:
        return guild.get_member(user) or await guild.fetch_member(user)
    except discord.HTTPException:
        return None
