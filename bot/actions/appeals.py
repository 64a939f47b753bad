"""Appeals: from an author's form to the mod-log, and moderators' answers to them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, missing_permissions, retry
from bot.actions.members import fetch_member, lift_time_out
from bot.actions.notices import MAX_TEXT, send_dm
from bot.actions.outbox import pause_before
from bot.actions.review import NotCarriedOutError, missing_for, write_decision
from bot.actions.telling import ModlogChannel, modlog_channel, modlog_problem
from bot.rules.policy import Action
from bot.services import Services, services_of
from bot.storage.appeals import Appeals
from bot.storage.database import StoreError
from bot.storage.tables import DELETED, REVERSED, TIMED_OUT, UPHELD, Appeal, Ruling

log = logging.getLogger(__name__)

SEARCHED = 1000
"""Messages of the mod-log among which the entry about a message, or an earlier post of the appeal, is looked for."""
MAX_AGE = 7 * 86400
"""Seconds after which an appeal that cannot be posted is dropped."""
ACTIONS = {
    Action.SPOILER: "reposted behind a spoiler",
    Action.DELETE: "deleted",
    Action.TIMEOUT: "deleted, author timed out",
}


@dataclass(frozen=True)
class AppealChoice:
    """One button: what it says, the state that it gives an appeal, and what the author is told."""

    label: str
    state: str
    style: discord.ButtonStyle
    answer: str


CHOICES = {
    "uphold": AppealChoice(
        "Uphold", UPHELD, discord.ButtonStyle.secondary, "Moderators looked at it again, and the decision stands."
    ),
    "reverse": AppealChoice(
        "Reverse",
        REVERSED,
        discord.ButtonStyle.success,
        "Moderators looked at it again and reversed the decision. You may post the picture again.",
    ),
}
"""By the word in a button's custom id. Posted appeals hold these ids: never change them."""


def plain_text(text: str) -> str:
    """What a stranger wrote, as a block without markup, links, mentions or invisible characters."""
    printable = "".join(character for character in text if character.isprintable() or character == "\n")
    # A backtick could end the block.
    words = printable.replace("`", "'").strip()[:MAX_TEXT]
    return f"```\n{words}\n```" if words else "No reason given."


class AppealPost:
    """Posts appeals to the mod-logs of this process's servers."""

    def __init__(self, services: Services, client: discord.Client) -> None:
        self._services = services
        self._client = client
        self._active: set[int] = set()
        """Messages whose appeals are being posted."""

    async def run(self) -> None:
        """Post the appeals that are due. Forms arrive at the process of the first shard, whatever the server."""
        kept = self._services.appeals
        try:
            for appeal in await kept.due([guild.id for guild in self._client.guilds]):
                guild = self._client.get_guild(appeal.guild_id)
                if guild is None or guild.unavailable or appeal.message_id in self._active:
                    continue
                self._active.add(appeal.message_id)
                try:
                    await self._post(kept, appeal, guild)
                finally:
                    self._active.discard(appeal.message_id)
        except StoreError:
            self._services.metrics.errors.labels("store").inc()

    async def _post(self, kept: Appeals, appeal: Appeal, guild: discord.Guild) -> None:
        policy = await self._services.store.policy(guild.id)
        channel, problem = modlog_channel(guild, policy), modlog_problem(guild, policy)
        if channel is not None and not problem:
            try:
                await _post_once(channel, guild, appeal)
            except DISCORD_ERRORS as error:
                problem = describe_error(error)
        now = self._services.store.now()
        if not problem or now - appeal.created_at > MAX_AGE:
            await kept.posted(appeal.message_id)
        else:
            await kept.postpone(appeal, now + pause_before(appeal.tries))
        if problem:
            self._services.metrics.errors.labels("mod-log").inc()
            log.warning("could not post an appeal: %s", problem, extra={"guild_id": guild.id})


async def _post_once(channel: ModlogChannel, guild: discord.Guild, appeal: Appeal) -> None:
    """Post an appeal below the entry that it is about, unless an attempt before a crash did."""
    entry = None
    if not missing_permissions(channel, read_message_history=True):
        # Clocks differ, and the entry may have come first.
        since = discord.utils.snowflake_time(appeal.message_id) - timedelta(minutes=1)
        async for message in channel.history(limit=SEARCHED, after=since, oldest_first=True):
            if message.author.id != guild.me.id or not message.embeds:
                continue
            if (message.embeds[0].footer.text or "") == _mark(appeal):
                return
            if entry is None and any(field.value == _link(appeal) for field in message.embeds[0].fields):
                entry = message
    reference = entry.to_reference(fail_if_not_exists=False) if entry else None
    more: dict[str, Any] = {"reference": reference, "mention_author": False} if reference else {}

    async def send() -> None:
        await channel.send(
            embed=build_appeal(appeal),
            view=_decision_view(appeal.message_id),
            allowed_mentions=discord.AllowedMentions.none(),
            # Discord posts a nonce once within some minutes, so that a retry cannot double the appeal.
            nonce=appeal.message_id,
            **more,
        )

    await retry(send)


def _mark(appeal: Appeal) -> str:
    return f"Appeal #{appeal.message_id}"


def _link(appeal: Appeal) -> str:
    return f"https://discord.com/channels/{appeal.guild_id}/{appeal.channel_id}/{appeal.message_id}"


def build_appeal(appeal: Appeal) -> discord.Embed:
    """What moderators read."""
    embed = discord.Embed(title="Appeal", description=plain_text(appeal.text or ""), colour=discord.Colour.blue())
    embed.add_field(name="Author", value=f"<@{appeal.user_id}> ({appeal.user_id})")
    embed.add_field(name="About", value=_link(appeal))
    action = ACTIONS.get(Action(appeal.action), "")
    embed.add_field(name="Rule", value=f"{discord.utils.escape_markdown(appeal.label)}: {action}"[:1000], inline=False)
    embed.set_footer(text=_mark(appeal))
    return embed


def _decision_view(message_id: int) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for name in CHOICES:
        view.add_item(AppealDecisionButton(name, message_id))
    return view


class AppealDecisionButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"appeal:(?P<choice>uphold|reverse):(?P<message>[0-9]{1,20})",
):
    """Decides an appeal. It works after restarts."""

    def __init__(self, name: str, message_id: int) -> None:
        self.name, self.choice, self.message_id = name, CHOICES[name], message_id
        custom_id = f"appeal:{name}:{message_id}"
        super().__init__(discord.ui.Button(label=self.choice.label, style=self.choice.style, custom_id=custom_id))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """discord.py builds the button anew for each click."""
        return cls(match["choice"], int(match["message"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """A moderator clicked: answer only if nothing was done, for otherwise the post shows it."""
        services = services_of(interaction)
        await interaction.response.defer()
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
        """Decide the appeal, once.

        Raises:
            NotCarriedOutError: if it is not the clicker's to decide, or decided already.
            StoreError: if the database is away.
        """
        moderator, kept = interaction.user, services.appeals
        if interaction.guild is None or not isinstance(moderator, discord.Member):
            raise NotCarriedOutError("this works only in a server")
        appeal = await kept.find(self.message_id) if self.message_id < 2**63 else None
        if appeal is None or appeal.guild_id != interaction.guild.id:
            raise NotCarriedOutError("there is no record of this appeal any more")
        lifts = self.choice.state == REVERSED and appeal.action == Action.TIMEOUT
        if missing := missing_for(moderator, appeal.channel_id, "timeout" if lifts else ""):
            raise NotCarriedOutError(f"you need the {missing} permission in that channel")
        if not await kept.settle(self.message_id, self.choice.state, moderator.id):
            now = await kept.find(self.message_id) or appeal
            raise NotCarriedOutError(f"already {now.state} by <@{now.moderator_id}>")
        try:
            note = await self._carry_out(services, moderator, appeal)
        except StoreError:
            await kept.reopen(self.message_id, self.choice.state)
            raise
        log.info("a moderator decided an appeal", extra={"message_id": self.message_id, "moderator": moderator.id})
        server = discord.utils.escape_markdown(interaction.guild.name)
        told = await send_dm(interaction.client, appeal.user_id, f"Your appeal in **{server}**: {self.choice.answer}")
        notes = [note, "" if told else "the author could not be told"]
        text = " ".join(map(as_sentence, filter(None, (f"{self.choice.state} by {moderator.mention}", *notes))))
        await self._update_post(interaction, text)

    async def _carry_out(self, services: Services, moderator: discord.Member, appeal: Appeal) -> str:
        """Do what the choice asks for. Returns a note about the time-out, or nothing.

        Raises:
            StoreError: if the database is away.
        """
        timed_out = appeal.action == Action.TIMEOUT
        if self.choice.state == UPHELD:  # agrees with what is still open
            state = TIMED_OUT if timed_out else DELETED
            await services.store.settle(appeal.message_id, state, moderator.id)
            return ""
        for decision in await services.store.overturn(appeal.message_id, moderator.id):
            if decision.sha256 and decision.phash is not None:
                await services.rulings.add(
                    Ruling(
                        guild_id=decision.guild_id,
                        sha256=decision.sha256,
                        phash=decision.phash,
                        allowed=True,
                        label=decision.label,
                        created_at=services.store.now(),
                    )
                )
        if not timed_out:
            return ""
        author, failure = await fetch_member(moderator.guild, appeal.user_id)
        if author is None:
            return f"the time-out could not be lifted: {failure}"
        if not author.is_timed_out():
            return "the time-out is over"
        return await lift_time_out(author, f"{moderator} reversed it after an appeal")

    async def _update_post(self, interaction: discord.Interaction[Any], text: str) -> None:
        post = interaction.message
        embed = post.embeds[0] if post and post.embeds else discord.Embed(title="Appeal")
        write_decision(embed, text)
        embed.colour = discord.Colour.dark_grey()
        await interaction.edit_original_response(embed=embed, view=None)
