"""The memory of pictures: block or allow one, and list, explain and forget what was decided."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error, missing_permissions, retry
from bot.actions.modlog import MAX_THUMBNAILS
from bot.actions.remembering import BLURRED
from bot.actions.telling import modlog_channel, modlog_problem
from bot.actions.undoing import undo_view
from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.commands.confirming import AskersView, confirm
from bot.commands.rights import require_moderator_of, require_server_moderator
from bot.pictures import lists, recognising
from bot.pictures.examining import blurred_jpeg
from bot.pictures.fairness import QueueFullError
from bot.pictures.fetching import NotAPictureError, UnfetchedError
from bot.pictures.references import Reference, references
from bot.services import Services
from bot.storage.tables import Ruling, rulings
from stages.inference import PictureError

MAX_OFFERED = 25
"""Pictures of a message among which a menu chooses: what Discord takes."""
SHOWN = 15
"""Decisions in one answer of `/pictures list`."""
CHOICE_SECONDS = 300.0
"""After this, the menu does nothing any more."""
SHORT = 10
"""Hex digits of a picture's SHA-256 that name it in a list."""
NOT_DECODED = (PictureError, UnfetchedError, NotAPictureError, QueueFullError, TimeoutError)


def describe_ruling(ruling: Ruling) -> str:
    """One decision: what, who, when, why, how often met."""
    verb = "allowed" if ruling.allowed else "blocked"
    who = f" by <@{ruling.moderator_id}>" if ruling.moderator_id else ""
    why = f": {ruling.reason}" if ruling.reason else ""
    met = f", met {plural(ruling.met, 'time')}" if ruling.met else ", not met since"
    if ruling.met and ruling.met_at:
        met += f" (last <t:{ruling.met_at}:R>)"
    return f"`{ruling.sha256[:SHORT]}` **{verb}**{who} <t:{ruling.created_at}:R>{why}{met}"


class PictureMemory(DeferringCog):
    """`/pictures`, and the context menus "Block this picture" and "Allow this picture", for moderators."""

    pictures = app_commands.Group(
        name="pictures",
        description="Pictures that moderators have decided on",
        guild_only=True,
        default_permissions=discord.Permissions(manage_messages=True),
    )

    def __init__(self, bot: commands.AutoShardedBot, services: Services) -> None:
        self._bot = bot
        self._services = services
        self._menus = [
            app_commands.ContextMenu(name="Block this picture", callback=self.block),
            app_commands.ContextMenu(name="Allow this picture", callback=self.allow),
        ]
        for menu in self._menus:
            menu.guild_only = True
            menu.default_permissions = discord.Permissions(manage_messages=True)

    async def cog_load(self) -> None:
        """Register the context menus: discord.py finds only a cog's slash commands by itself."""
        for menu in self._menus:
            self._bot.tree.add_command(menu)

    async def cog_unload(self) -> None:
        """Remove the context menus."""
        for menu in self._menus:
            self._bot.tree.remove_command(menu.name, type=menu.type)

    async def block(self, interaction: Interaction, message: discord.Message) -> None:
        """Delete the message, and from now on every copy of its picture."""
        await self._ask(interaction, message, allowed=False)

    async def allow(self, interaction: Interaction, message: discord.Message) -> None:
        """Let copies of the message's picture through from now on, whatever the model says."""
        await self._ask(interaction, message, allowed=True)

    async def _ask(self, interaction: Interaction, message: discord.Message, allowed: bool) -> None:
        """Decide on the picture of a message, or ask on which."""
        guild = guild_of(interaction)
        await interaction.response.defer(ephemeral=True)
        await require_moderator_of(interaction, guild, message.channel.id)
        found = references(message)[:MAX_OFFERED]
        if not found:
            await answer(interaction, "No pictures in this message.")
        elif len(found) == 1:
            await self.decide(interaction, message, found, allowed)
        else:
            verb = "allow" if allowed else "block"
            text = f"This message has {len(found)} pictures. Which do you want to {verb}?"
            await answer(interaction, text, view=PictureChoice(self, interaction.user.id, message, found, allowed))

    async def decide(
        self, interaction: Interaction, message: discord.Message, chosen: Sequence[Reference], allowed: bool
    ) -> None:
        """Remember a decision on some pictures, delete the message if they are blocked, and tell the mod-log.

        Raises:
            app_commands.CheckFailure: if the decision is not the asker's to make (any more).
            StoreError: if the database is away.
        """
        guild = guild_of(interaction)
        await require_moderator_of(interaction, guild, message.channel.id)  # at each click: rights may have gone
        made: list[Ruling] = []
        failures: list[str] = []
        thumbnails: list[bytes] = []
        for reference in chosen:
            try:
                decoded = await self._services.examiner.describe(reference, guild.id)
            except NOT_DECODED as error:
                reason = error.detail if isinstance(error, PictureError | UnfetchedError) else type(error).__name__
                failures.append(f"`{reference.name or reference.kind}` could not be read ({reason}).")
                continue
            thumbnails.append(await self._services.judge.run_in_thread(blurred_jpeg, decoded.thumbnail()))
            made.append(
                Ruling(
                    guild_id=guild.id,
                    sha256=decoded.sha256,
                    phash=decoded.phash,
                    allowed=allowed,
                    label="allowed" if allowed else "blocked",
                    created_at=self._services.store.now(),
                    fingerprint=decoded.fingerprint,
                    moderator_id=interaction.user.id,
                    origin="command",
                    link=f"{guild.id}/{message.channel.id}/{message.id}",
                )
            )
        await self._services.rulings.add(*made)
        lines = []
        if made:
            verb = "Allowed" if allowed else "Blocked"
            lines.append(f"{verb} {plural(len(made), 'picture')}, and copies from now on.")
            if not allowed:
                lines.append(await self._delete(interaction, message))
            await self._tell(interaction, message, made, lines, thumbnails)
        await answer(interaction, " ".join(filter(None, [*lines, *failures])))

    async def _delete(self, interaction: Interaction, message: discord.Message) -> str:
        """Delete the message. Returns what came of it."""
        if missing := missing_permissions(message.channel, manage_messages=True):
            return f"The message stays ({missing})."
        http, reason = self._bot.http, f"picture blocked by {interaction.user}"
        try:
            await retry(lambda: http.delete_message(message.channel.id, message.id, reason=reason))
        except discord.NotFound:
            return ""
        except DISCORD_ERRORS as error:
            return f"The message stays: {describe_error(error)}."
        return "The message is deleted."

    async def _tell(
        self,
        interaction: Interaction,
        message: discord.Message,
        made: Sequence[Ruling],
        lines: Sequence[str],
        thumbnails: Sequence[bytes],
    ) -> None:
        """An entry in the mod-log, with a button that undoes it. Later entries on copies point to it."""
        guild = guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        channel = modlog_channel(guild, policy)
        if channel is None or modlog_problem(guild, policy):
            return
        embed = discord.Embed(description=" ".join(lines)[:2000], colour=discord.Colour.dark_grey())
        embed.add_field(name="Moderator", value=interaction.user.mention)
        embed.add_field(name="Author", value=f"<@{message.author.id}> ({message.author.id})")
        embed.add_field(name="Message", value=message.jump_url, inline=False)
        view = undo_view(message.channel.id, [ruling.sha256 for ruling in made])
        files = [
            discord.File(io.BytesIO(data), f"{BLURRED}-{place}.jpg")
            for place, data in enumerate(thumbnails[:MAX_THUMBNAILS])
        ]
        more: dict[str, Any] = {"view": view} if view else {}
        try:
            entry = await channel.send(
                embed=embed, files=files, allowed_mentions=discord.AllowedMentions.none(), **more
            )
        except DISCORD_ERRORS:
            self._services.metrics.errors.labels("mod-log").inc()
            return
        link = f"{guild.id}/{entry.channel.id}/{entry.id}"
        await self._services.rulings.add(*(replace(ruling, link=link) for ruling in made))

    @pictures.command(name="list", description="List the pictures that moderators have blocked or allowed")
    @app_commands.describe(decision="only these", page="further decisions")
    @app_commands.choices(decision=[app_commands.Choice(name=name, value=name) for name in ("blocked", "allowed")])
    async def list_pictures(
        self, interaction: Interaction, decision: str | None = None, page: app_commands.Range[int, 1, 10_000] = 1
    ) -> None:
        guild = guild_of(interaction)
        require_server_moderator(interaction)
        conditions = [] if decision is None else [rulings.c.allowed.is_(decision == "allowed")]
        found = await self._services.store.rulings(guild.id, *conditions, limit=page * SHOWN + 1)
        lines = [describe_ruling(ruling) for ruling in found[(page - 1) * SHOWN : page * SHOWN]]
        if not lines:
            await answer(interaction, "No decisions on pictures." if page == 1 else "No further decisions.")
            return
        if len(found) > page * SHOWN:
            lines.append(f"-# More: page:{page + 1}. `/pictures show` explains one, `/pictures forget` undoes it.")
        await answer(interaction, "\n".join(lines))

    @pictures.command(name="show", description="Explain a decision on a picture")
    @app_commands.describe(picture="ID as /pictures list shows it")
    async def show(self, interaction: Interaction, picture: str) -> None:
        require_server_moderator(interaction)
        ruling = await self._find(interaction, picture)
        if ruling is None:
            return
        lines = [
            describe_ruling(ruling),
            f"SHA-256 `{ruling.sha256}`",
            f"Decided by {'a review' if ruling.origin == 'review' else f'a {ruling.origin}'}, label {ruling.label}.",
            "Copies are recognised."
            if ruling.fingerprint
            else "Only the same picture is recognised: it is an old entry.",
        ]
        if ruling.link:
            lines.append(f"https://discord.com/channels/{ruling.link}")
        await answer(interaction, "\n".join(lines))

    @pictures.command(name="forget", description="Undo a decision on a picture: the model judges it again")
    @app_commands.describe(picture="ID as /pictures list shows it")
    async def forget(self, interaction: Interaction, picture: str) -> None:
        require_server_moderator(interaction)
        ruling = await self._find(interaction, picture)
        if ruling is not None and await self._services.rulings.forget(ruling.guild_id, ruling.sha256):
            await answer(interaction, f"Forgotten: `{ruling.sha256[:SHORT]}`. The model judges this picture again.")

    @pictures.command(name="threshold", description="From which similarity on a copy is treated like the picture")
    @app_commands.describe(
        similarity=f"{recognising.SURE} by default; lower acts on more copies, and on more other pictures"
    )
    @app_commands.checks.has_permissions(manage_guild=True)
    async def threshold(
        self, interaction: Interaction, similarity: app_commands.Range[float, recognising.LIKELY, 1.0]
    ) -> None:
        guild, store = guild_of(interaction), self._services.store
        policy = replace(await store.policy(guild.id), copy_threshold=similarity)
        await store.set_policy(guild.id, policy)
        text = f"Copies from {similarity:.2f} on are treated like the picture that moderators decided on. "
        await answer(interaction, text + f"Those from {recognising.LIKELY:.2f} on are flagged. {recognising.ERRORS}")

    @pictures.command(name="export", description="Attach this server's decisions as a list: hashes, never pictures")
    async def export(self, interaction: Interaction) -> None:
        require_server_moderator(interaction)
        found = await self._services.store.rulings(guild_of(interaction).id)
        data, count = await self._services.judge.run_in_thread(lists.write, found)
        if not count:
            await answer(interaction, "No decisions on pictures.")
            return
        text = f"{plural(count, 'decision')}." if count == len(found) else f"The newest {count:,} of {len(found):,}."
        await answer(interaction, text, files=[discord.File(io.BytesIO(data), "pictures.jsonl")])

    @pictures.command(name="import", description="Add the decisions of a list to this server's")
    @app_commands.describe(file="JSON lines, as /pictures export writes them")
    @app_commands.checks.has_permissions(manage_guild=True)
    async def import_list(self, interaction: Interaction, file: discord.Attachment) -> None:
        guild, services = guild_of(interaction), self._services
        if file.size > lists.MAX_BYTES:
            await answer(interaction, f"Nothing imported: the file is larger than {lists.MAX_BYTES:,} bytes.")
            return
        try:
            data = await services.fetcher.fetch_file(file.url, lists.MAX_BYTES)
        except UnfetchedError as error:
            await answer(interaction, f"Nothing imported: {error.detail}.")
            return
        now = services.store.now()
        parsed = await services.judge.run_in_thread(lists.parse, data, guild.id, interaction.user.id, now)
        known = await services.store.known_rulings(guild.id, {ruling.sha256 for ruling in parsed.rulings})
        new = [ruling for ruling in parsed.rulings if ruling.sha256 not in known]
        allowed = sum(ruling.allowed for ruling in new)
        lines = [
            f"This would block {plural(len(new) - allowed, 'picture')} and allow {plural(allowed, 'picture')}.",
            f"{plural(len(known), 'picture')} with a decision here already: this server's own stays." if known else "",
            parsed.describe_problems(),
        ]
        text = " ".join(filter(None, lines))
        if not new:
            await answer(interaction, f"Nothing to import. {text}")
            return

        async def carry_out(click: Interaction) -> None:
            if not click.permissions.manage_guild:  # at each click: rights may have gone
                raise app_commands.MissingPermissions(["manage_guild"])
            count = await services.rulings.add_all(guild.id, new)
            await answer(click, f"Imported {plural(count, 'decision')}. `/pictures forget` undoes one.")

        await confirm(interaction, text, "Import", carry_out)

    @pictures.command(name="publish", description="Let other servers of this bot follow this server's decisions")
    @app_commands.checks.has_permissions(manage_guild=True)
    async def publish(self, interaction: Interaction, on: bool) -> None:
        guild = guild_of(interaction)
        await self._services.rulings.publish(guild.id, on)
        text = (
            f"Other servers may follow this one: `/pictures follow {guild.id}`."
            if on
            else "No server follows any more."
        )
        await answer(interaction, text)

    @pictures.command(name="follow", description="Apply another list's decisions; this server's own come first")
    @app_commands.describe(name="ID of a server that publishes its decisions, or a list of the bot's", on="or no more")
    @app_commands.checks.has_permissions(manage_guild=True)
    async def follow(self, interaction: Interaction, name: str, on: bool = True) -> None:
        guild, memory = guild_of(interaction), self._services.rulings
        known = name in memory.files
        if not known and name.isdecimal() and len(name) <= 19 and int(name) not in (guild.id, 0):
            known = await memory.is_published(int(name))
        if on and not known:
            names = ", ".join(memory.files) or "none"
            text = f"There is no such list. The bot's own: {names}. A server has to publish its decisions first."
            await answer(interaction, text)
            return
        await memory.subscribe(guild.id, name[:80], on)
        verb = "follows" if on else "does not follow"
        await answer(interaction, f"This server {verb} `{name[:80]}`.")

    async def _find(self, interaction: Interaction, picture: str) -> Ruling | None:
        """The decision that an ID names. If it names none, or several, the asker is told."""
        start = picture.strip("` ").lower()[:64]
        if len(start) < 4 or not set(start) <= set("0123456789abcdef"):
            await answer(interaction, "That is not an ID: copy it from `/pictures list`.")
            return None
        guild = guild_of(interaction)
        found = await self._services.store.rulings(guild.id, rulings.c.sha256.startswith(start), limit=2)
        if len(found) == 1:
            return found[0]
        text = "No such picture. `/pictures list` has their IDs." if not found else "Several pictures begin like this."
        await answer(interaction, text)
        return None


class PictureChoice(AskersView):
    """Which pictures of a message are meant."""

    def __init__(
        self,
        cog: PictureMemory,
        asker_id: int,
        message: discord.Message,
        found: Sequence[Reference],
        allowed: bool,
    ) -> None:
        super().__init__(asker_id, CHOICE_SECONDS, manage_messages=True)
        self._cog, self._message, self._allowed = cog, message, allowed
        self._found = list(found)
        self._menu: discord.ui.Select[Any] = discord.ui.Select(
            placeholder="Pictures to allow" if allowed else "Pictures to block",
            max_values=len(found),
            options=[
                discord.SelectOption(label=f"{number}. {each.name or each.kind}"[:100], value=str(number - 1))
                for number, each in enumerate(found, 1)
            ],
        )
        self._menu.callback = self._chosen  # type: ignore[method-assign]
        self.add_item(self._menu)

    async def _chosen(self, interaction: Interaction) -> None:
        if self.is_finished():
            return
        self.stop()
        await interaction.response.defer(ephemeral=True)
        chosen = [self._found[int(value)] for value in self._menu.values]
        await self._cog.decide(interaction, self._message, chosen, self._allowed)
