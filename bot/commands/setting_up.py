"""`/setup`: the settings that a server needs, one after the other, with what is missing, and a test at the end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, missing_permissions
from bot.actions.telling import modlog_permissions_missing, modlog_problem
from bot.actions.testing import TestFailedError, post_test
from bot.commands.answering import MESSAGE_LENGTH, DeferringCog, Interaction, guild_of
from bot.commands.confirming import AskersView
from bot.commands.describing import describe_policy
from bot.commands.rights import needs_manager
from bot.rules.bursts import BurstLimits
from bot.rules.policy import Action, GuildPolicy, Mode
from bot.rules.shield import describe_limits
from bot.services import Services

SETUP_SECONDS = 600.0
"""Without a click. Discord takes edits of an answer for 15 minutes after the last one."""
MAX_NAMED = 10
"""Channels that are named for each missing permission."""
NO_TIME_OUT = ":warning: Missing permission: Moderate Members, to time out."
MODES = {
    Mode.SHADOW: "only log, and touch nothing",
    Mode.REVIEW: "post matches to the mod-log, for moderators to decide",
    Mode.ENFORCE: "do what the rules say, and post to the mod-log",
}

Callback = Callable[[Interaction], Coroutine[Any, Any, None]]


def missing_in_channels(guild: discord.Guild, policy: GuildPolicy, actions: Sequence[Action]) -> list[str]:
    """What the bot lacks for the server's mode, a line for each set of permissions, with the channels.

    Args:
        guild: the server.
        policy: its settings.
        actions: what its rules ask for.
    """
    wanted = {"view_channel", "read_message_history"}
    if policy.mode is Mode.ENFORCE and (policy.shield.on or max(actions, default=Action.LOG) > Action.FLAG):
        wanted |= {"manage_messages"}
        if Action.SPOILER in actions:
            wanted |= {"send_messages", "attach_files"}
    by_missing: dict[str, list[str]] = {}
    channels: list[discord.TextChannel | discord.VoiceChannel | discord.ForumChannel] = [
        *guild.text_channels,
        *guild.voice_channels,
        *guild.forums,
    ]
    for channel in channels:
        exempt = policy.exempt_channels & {channel.id, channel.category_id}
        missing = missing_permissions(channel, **dict.fromkeys(sorted(wanted), True))
        if missing and not exempt:
            by_missing.setdefault(missing, []).append(channel.mention)
    lines = []
    for missing, mentions in sorted(by_missing.items()):
        more = f" and {len(mentions) - MAX_NAMED} more" if len(mentions) > MAX_NAMED else ""
        lines.append(f":warning: {as_sentence(missing)[:-1]} in {', '.join(mentions[:MAX_NAMED])}{more}.")
    if policy.mode is Mode.ENFORCE and Action.TIMEOUT in actions and not guild.me.guild_permissions.moderate_members:
        lines.append(NO_TIME_OUT)
    return lines


class Setup(AskersView):
    """One step at a time. What is chosen is saved at once."""

    def __init__(self, services: Services, interaction: Interaction) -> None:
        super().__init__(interaction.user.id, SETUP_SECONDS, manage_guild=True)
        self._services = services
        self._latest = interaction
        self._place = 0
        self._posting = False

    async def on_timeout(self) -> None:
        """Say so, and take the buttons away."""
        text = "Set-up ended: nothing was clicked for 10 minutes. What you chose is saved; `/setup` goes on from there."
        try:
            await self._latest.edit_original_response(content=text, view=None)
        except DISCORD_ERRORS:
            pass  # dismissed

    async def show(self, interaction: Interaction, note: str = "") -> None:
        """Show the current step. `note`: what the last click did."""
        self._latest = interaction
        guild = guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        step = STEPS[self._place]
        self.clear_items()
        for item in step.items(self, policy):
            self.add_item(item)
        if self._place:
            self._add_button("Back", self._back)
        last = self._place == len(STEPS) - 1
        self._add_button("Finish" if last else "Next", self._finish if last else self._next, "primary")
        head = f"**Set-up, step {self._place + 1} of {len(STEPS)}: {step.title}**"
        lines = [head, *step.describe(self._services, guild, policy), note]
        await interaction.edit_original_response(content="\n".join(filter(None, lines))[:MESSAGE_LENGTH], view=self)

    def button(self, label: str, callback: Callback, style: str = "secondary") -> discord.ui.Button[Any]:
        """A button that calls `callback` once its click is acknowledged."""
        button: discord.ui.Button[Any] = discord.ui.Button(label=label, style=discord.ButtonStyle[style])
        _on_click(button, callback)
        return button

    def _add_button(self, label: str, callback: Callback, style: str = "secondary") -> None:
        button = self.button(label, callback, style)
        button.row = 4  # below the step's own
        self.add_item(button)

    async def change(self, interaction: Interaction, note: str = "", **values: Any) -> None:
        """Save a choice and show the step again."""
        await self._services.store.change_policy(guild_of(interaction).id, lambda policy: replace(policy, **values))
        await self.show(interaction, note or "Saved.")

    async def _back(self, interaction: Interaction) -> None:
        self._place = max(0, self._place - 1)
        await self.show(interaction)

    async def _next(self, interaction: Interaction) -> None:
        self._place = min(len(STEPS) - 1, self._place + 1)
        await self.show(interaction)

    async def _finish(self, interaction: Interaction) -> None:
        self.stop()
        guild = guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        summary = describe_policy(policy, self._services.serving.current.predictor.sidecar, guild)
        await interaction.edit_original_response(content=f"Set-up is done.\n{summary}"[:MESSAGE_LENGTH], view=None)

    async def post_test(self, interaction: Interaction) -> None:
        """Post the entry of a test picture, one at a time."""
        asker, guild = interaction.user, guild_of(interaction)
        if self._posting or not isinstance(asker, discord.Member):
            return
        self._posting = True
        try:
            policy = await self._services.store.policy(guild.id)
            note = f"It works: {await post_test(self._services, guild, policy, asker)}"
        except TestFailedError as error:
            note = f":warning: The test failed: {error}."
        finally:
            self._posting = False
        await self.show(interaction, note)


def _on_click(item: discord.ui.Item[Any], callback: Callback) -> None:
    async def acknowledge_and_call(interaction: Interaction) -> None:
        await interaction.response.defer()  # the database may be slow, and Discord waits only 3 s
        await callback(interaction)

    item.callback = acknowledge_and_call  # type: ignore[method-assign]


class Step:
    """A part of the set-up. It has no state: two moderators may be at the same one."""

    title: str

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        """What is chosen here, what is set now, and what is missing."""
        raise NotImplementedError

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        """What can be clicked."""
        raise NotImplementedError


class ModlogStep(Step):
    """The channel for moderators."""

    title = "mod-log"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        lines = ["Each match becomes an entry in this channel. Choose one that only moderators can read."]
        lines.append(f"Now: {f'<#{policy.modlog}>' if policy.modlog else 'none'}")
        channel = guild.get_channel(policy.modlog or 0)
        if policy.modlog and (problem := modlog_problem(guild, policy)):
            lines.append(f":warning: It cannot be used: {problem}.")
        if channel is not None and channel.permissions_for(guild.default_role).view_channel:
            lines.append(f":warning: Everyone can read {channel.mention}. Entries link to pictures and name authors.")
        return lines

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        menu: discord.ui.ChannelSelect[Any] = discord.ui.ChannelSelect(
            channel_types=[discord.ChannelType.text], placeholder="Mod-log channel"
        )

        async def choose(interaction: Interaction) -> None:
            chosen = menu.values[0]
            if missing := modlog_permissions_missing(guild_of(interaction).get_channel(chosen.id)):
                await setup.show(interaction, f":warning: Mod-log not changed: {missing} in <#{chosen.id}>.")
            else:
                await setup.change(interaction, modlog=chosen.id)

        _on_click(menu, choose)
        return [menu]


class ModeStep(Step):
    """How far the bot may go."""

    title = "mode"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        sidecar = services.serving.current.predictor.sidecar
        actions = [rule.action for rule in (*policy.server_rules(sidecar), *policy.scoped_rules)]
        return [
            "Start with `review`, and look at `/stats` after some days before you choose `enforce`.",
            f"Now: {policy.mode.value} ({MODES[policy.mode]})",
            *missing_in_channels(guild, policy, actions),
        ]

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        options = [
            discord.SelectOption(label=mode.value, description=text, default=mode is policy.mode)
            for mode, text in MODES.items()
        ]
        menu: discord.ui.Select[Any] = discord.ui.Select(placeholder="Mode", options=options)

        async def choose(interaction: Interaction) -> None:
            await setup.change(interaction, mode=Mode(menu.values[0]))

        _on_click(menu, choose)
        return [menu]


class RoleStep(Step):
    """Whom to ping."""

    title = "moderators' role"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        lines = [
            "A rule with a ping mentions this role. The buttons of an entry are for all who may delete the message, "
            "with this role or without.",
            f"Now: {f'<@&{policy.moderators}>' if policy.moderators else 'none'}",
        ]
        role = guild.get_role(policy.moderators or 0)
        # Discord delivers a mention of such a role without a notification, and says nothing about it.
        if role and not role.mentionable and not guild.me.guild_permissions.mention_everyone:
            lines.append(f":warning: Pings will not notify {role.mention}: allow everyone to mention it.")
        return lines

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        menu: discord.ui.RoleSelect[Any] = discord.ui.RoleSelect(placeholder="Moderators' role")

        async def choose(interaction: Interaction) -> None:
            await setup.change(interaction, moderators=menu.values[0].id)

        _on_click(menu, choose)
        return [menu]


class AuthorsStep(Step):
    """Whether authors are told."""

    title = "authors"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        return [
            "The bot can tell authors by direct message which rule their picture matched, never a score, and let them "
            "appeal once. Appeals come to the mod-log: somebody has to answer them.",
            f"Now: authors are {'told' if policy.tell_author else 'not told'}",
        ]

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        async def switch(interaction: Interaction) -> None:
            await setup.change(interaction, tell_author=not policy.tell_author)

        return [setup.button("Do not tell authors" if policy.tell_author else "Tell authors", switch)]


class ShieldStep(Step):
    """The burst rule."""

    title = "waves of pictures"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        shield = policy.shield
        limits = BurstLimits(shield.channels, shield.seconds, shield.any_picture)
        lines = [
            f"An account that posts {describe_limits(limits)} is most likely hijacked. With the shield on, all copies "
            "count as one match, whatever the model says of them. `/shield` has its numbers.",
            f"Now: {'on' if shield.on else 'off'}",
        ]
        if shield.on and shield.time_out and not guild.me.guild_permissions.moderate_members:
            lines.append(NO_TIME_OUT)
        return lines

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        async def switch(interaction: Interaction) -> None:
            await setup.change(interaction, shield=replace(policy.shield, on=not policy.shield.on))

        return [setup.button("Switch off" if policy.shield.on else "Switch on", switch)]


class TestStep(Step):
    """A harmless picture through the whole bot."""

    __test__ = False  # pytest takes a class of this name for tests
    title = "test"

    def describe(self, services: Services, guild: discord.Guild, policy: GuildPolicy) -> list[str]:
        lines = ["The bot draws a harmless picture, checks it, and posts its entry to the mod-log, marked as a test."]
        if problem := modlog_problem(guild, policy):
            lines.append(f":warning: The mod-log cannot be used: {problem}.")
        return lines

    def items(self, setup: Setup, policy: GuildPolicy) -> list[discord.ui.Item[Any]]:
        return [setup.button("Post a test picture", setup.post_test)]


STEPS: tuple[Step, ...] = (ModlogStep(), ModeStep(), RoleStep(), AuthorsStep(), ShieldStep(), TestStep())


class SettingUp(DeferringCog):
    """`/setup`, for members with Manage Server."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @app_commands.command(name="setup", description="Set the bot up, step by step, with a test at the end")
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_guild=True)
    @needs_manager
    async def setup(self, interaction: Interaction) -> None:
        await Setup(self._services, interaction).show(interaction)
