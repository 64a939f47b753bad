"""A server's settings: mode, mod-log, exemptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

from bot.actions.telling import modlog_permissions_missing
from bot.commands.answering import DeferringCog, Interaction, answer, guild_of
from bot.commands.confirming import confirm
from bot.commands.describing import describe_exemptions, describe_policy
from bot.commands.rights import needs_manager
from bot.rules.policy import GuildPolicy, Mode
from bot.services import Services
from stages.inference.sidecar import Sidecar

ExemptChannel = discord.TextChannel | discord.ForumChannel | discord.VoiceChannel | discord.CategoryChannel


class Configuring(DeferringCog):
    """`/policy`, `/channel` and `/exempt`, for members with Manage Server."""

    policy = app_commands.Group(
        name="policy",
        description="What happens to pictures in this server",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    channel = app_commands.Group(
        name="channel",
        description="The mod-log channel",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    exempt = app_commands.Group(
        name="exempt",
        description="Roles and channels that are not checked",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _sidecar(self) -> Sidecar:
        return self._services.serving.current.predictor.sidecar

    async def _change(self, interaction: Interaction, **values: Any) -> GuildPolicy:
        """Replace some of the server's settings. Returns all of them."""
        return await self._services.store.change_policy(
            guild_of(interaction).id, lambda policy: replace(policy, **values)
        )

    @policy.command(name="show", description="Show this server's settings")
    @needs_manager
    async def show(self, interaction: Interaction) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        await answer(interaction, describe_policy(policy, self._sidecar, guild_of(interaction)))

    @policy.command(name="set", description="Change the mode, the moderator role, the time-out, or what is skipped")
    @app_commands.describe(
        mode="shadow only logs, review posts to the mod-log, enforce does what the rules say",
        moderators="role to ping when a rule asks for it",
        timeout_minutes="length of a time-out in minutes",
        skip_age_gated="skip age-restricted channels",
        skip_bots="skip messages from other bots",
        exempt_moderators="skip the pictures of members with Manage Messages",
        tell_author="tell authors by direct message what was done, and let them appeal",
        act_untold="delete, repost and time out even if the mod-log cannot be used",
    )
    @needs_manager
    async def set_policy(
        self,
        interaction: Interaction,
        mode: Mode | None = None,
        moderators: discord.Role | None = None,
        timeout_minutes: app_commands.Range[int, 1, 40320] | None = None,
        skip_age_gated: bool | None = None,
        skip_bots: bool | None = None,
        exempt_moderators: bool | None = None,
        tell_author: bool | None = None,
        act_untold: bool | None = None,
    ) -> None:
        values = {
            "mode": mode,
            "moderators": moderators.id if moderators else None,
            "timeout_minutes": timeout_minutes,
            "skip_age_gated": skip_age_gated,
            "skip_bots": skip_bots,
            "exempt_moderators": exempt_moderators,
            "tell_author": tell_author,
            "act_untold": act_untold,
        }
        changes = {name: value for name, value in values.items() if value is not None}
        if not changes:
            await answer(interaction, "Nothing changed: name at least one setting.")
            return
        if act_untold and not (await self._services.store.policy(guild_of(interaction).id)).act_untold:
            await confirm(
                interaction,
                "The bot would delete and repost messages and time members out even while no moderator can be told.",
                "Act all the same",
                lambda click: self._set_policy(click, changes, moderators),
                manage_guild=True,
            )
            return
        await self._set_policy(interaction, changes, moderators)

    async def _set_policy(
        self, interaction: Interaction, changes: dict[str, Any], moderators: discord.Role | None
    ) -> None:
        policy = await self._change(interaction, **changes)
        lines = [describe_policy(policy, self._sidecar, guild_of(interaction))]
        # Discord delivers a mention of such a role without a notification, and says nothing about it.
        may_ping = guild_of(interaction).me.guild_permissions.mention_everyone
        if moderators and not moderators.mentionable and not may_ping:
            lines.append(f"Pings will not notify {moderators.mention}: allow everyone to mention it in its settings.")
        await answer(interaction, "\n".join(lines))

    @policy.command(name="reset", description="Remove this server's own rules, and use the model's")
    @needs_manager
    async def reset(self, interaction: Interaction) -> None:
        policy = await self._change(interaction, rules=None, scoped_rules=())
        await answer(interaction, describe_policy(policy, self._sidecar, guild_of(interaction)))

    @channel.command(name="modlog", description="Set the mod-log channel")
    @app_commands.describe(channel="channel that gets an entry for each match")
    @needs_manager
    async def modlog(self, interaction: Interaction, channel: discord.TextChannel) -> None:
        guild = guild_of(interaction)
        visible = guild.get_channel(channel.id)
        if missing := modlog_permissions_missing(visible):
            await answer(interaction, f"Mod-log not changed ({missing}).")
            return
        if visible and visible.permissions_for(guild.default_role).view_channel:
            await confirm(
                interaction,
                f"Everyone can read {channel.mention}. The mod-log links to the pictures and names their authors.",
                "Use it all the same",
                lambda click: self._set_modlog(click, channel),
                manage_guild=True,
            )
            return
        await self._set_modlog(interaction, channel)

    async def _set_modlog(self, interaction: Interaction, channel: discord.TextChannel) -> None:
        await self._change(interaction, modlog=channel.id)
        await answer(interaction, f"The mod-log is now {channel.mention}.")

    @channel.command(name="clear", description="Turn the mod-log off")
    @needs_manager
    async def clear(self, interaction: Interaction) -> None:
        policy = await self._change(interaction, modlog=None)
        text = "The mod-log is off. Matches are still logged by the bot."
        if policy.mode is Mode.ENFORCE and not policy.act_untold:
            text += " No message is deleted or reposted and nobody is timed out without a mod-log."
        await answer(interaction, text)

    @exempt.command(name="add", description="Exempt a role or channel from checks")
    @app_commands.describe(role="role whose members are not checked", channel="channel or category to skip")
    @needs_manager
    async def exempt_add(
        self,
        interaction: Interaction,
        role: discord.Role | None = None,
        channel: ExemptChannel | None = None,
    ) -> None:
        await self._set_exempt(interaction, role, channel, True)

    @exempt.command(name="remove", description="Check a role or channel again")
    @app_commands.describe(role="role whose members are checked again", channel="channel or category to check again")
    @needs_manager
    async def exempt_remove(
        self,
        interaction: Interaction,
        role: discord.Role | None = None,
        channel: ExemptChannel | None = None,
    ) -> None:
        await self._set_exempt(interaction, role, channel, False)

    @exempt.command(name="list", description="List the exempt roles and channels")
    @needs_manager
    async def exempt_list(self, interaction: Interaction) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        await answer(interaction, f"Exempt: {describe_exemptions(policy) or 'none'}.")

    async def _set_exempt(
        self,
        interaction: Interaction,
        role: discord.Role | None,
        channel: discord.abc.GuildChannel | None,
        exempt: bool,
    ) -> None:
        roles, channels = ({role.id} if role else frozenset()), ({channel.id} if channel else frozenset())
        if not roles and not channels:
            await answer(interaction, "Nothing changed: name a role or a channel.")
            return

        def change(policy: GuildPolicy) -> GuildPolicy:
            return replace(
                policy,
                exempt_roles=policy.exempt_roles | roles if exempt else policy.exempt_roles - roles,
                exempt_channels=policy.exempt_channels | channels if exempt else policy.exempt_channels - channels,
            )

        policy = await self._services.store.change_policy(guild_of(interaction).id, change)
        await answer(interaction, f"Exempt: {describe_exemptions(policy) or 'none'}.")
