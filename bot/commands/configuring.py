"""A server's settings: mode, rules, mod-log, exemptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import discord
from discord import app_commands

from bot.actions.telling import describe_modlog_problem, modlog_permissions_missing, modlog_problem
from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.commands.confirming import confirm
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, Mode, ModerationRule
from bot.services import Services
from stages.inference.sidecar import Sidecar, decided

needs_manager = app_commands.checks.has_permissions(manage_guild=True)
ExemptChannel = discord.TextChannel | discord.ForumChannel | discord.VoiceChannel | discord.CategoryChannel
ActionName = Literal["log", "flag", "spoiler", "delete", "timeout"]


ON_ALL = {
    Action.LOG: "log every picture",
    Action.FLAG: "flag every picture",
    Action.SPOILER: "repost every message with a picture behind a spoiler",
    Action.DELETE: "delete every message with a picture",
    Action.TIMEOUT: "time out everyone who posts a picture",
}
ALL_PICTURES = 0.01
"""A rule from a lower score on matches nearly every picture, so it takes a confirmation."""


def describe_policy(policy: GuildPolicy, sidecar: Sidecar, guild: discord.Guild) -> str:
    """A server's settings, one a line."""
    default = " (the model's defaults, until you set one with `/threshold`)" if policy.rules is None else ""
    lines = [
        f"**Mode** {policy.mode.value}",
        f"**Mod-log** {f'<#{policy.modlog}>' if policy.modlog else 'off (set a channel with `/channel modlog`)'}",
        f"**Without a mod-log** {'act all the same' if policy.act_untold else 'act on nothing'}",
        f"**Moderator role** {f'<@&{policy.moderators}>' if policy.moderators else 'not set'}",
        f"**Time-out** {plural(policy.timeout_minutes, 'minute')}",
        f"**Age-restricted channels** {'skipped' if policy.skip_age_gated else 'checked'}",
        f"**Other bots** {'skipped' if policy.skip_bots else 'checked'}",
        f"**Exempt** {_mentions(policy) or 'none'}",
        f"**Rules**{default}",
        *(_describe_rule(rule, sidecar) for rule in policy.effective_rules(sidecar)),
        "Everything else is only logged.",
    ]
    problem = modlog_problem(guild, policy)
    if problem and (policy.modlog is not None or policy.mode is not Mode.SHADOW):
        lines.append(f":warning: {describe_modlog_problem(policy, problem)}")
    return "\n".join(lines)


def _describe_rule(rule: ModerationRule, sidecar: Sidecar) -> str:
    ping = ", with a ping" if rule.ping else ""
    unknown = "" if rule.label in {*sidecar.labels, *UNJUDGED} else " (the current model does not have this label)"
    return f"- {rule.label} from {rule.threshold:.3f}: {rule.action.name.lower()}{ping}{unknown}"


def _mentions(policy: GuildPolicy) -> str:
    roles = [f"<@&{role_id}>" for role_id in sorted(policy.exempt_roles)]
    channels = [f"<#{channel_id}>" for channel_id in sorted(policy.exempt_channels)]
    return ", ".join(roles + channels)


class Configuring(DeferringCog):
    """`/policy`, `/channel`, `/exempt` and `/threshold`, for members with Manage Server."""

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
        guild = guild_of(interaction)
        policy = replace(await self._services.store.policy(guild.id), **values)
        await self._services.store.set_policy(guild.id, policy)
        return policy

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
        act_untold: bool | None = None,
    ) -> None:
        values = {
            "mode": mode,
            "moderators": moderators.id if moderators else None,
            "timeout_minutes": timeout_minutes,
            "skip_age_gated": skip_age_gated,
            "skip_bots": skip_bots,
            "act_untold": act_untold,
        }
        changes = {name: value for name, value in values.items() if value is not None}
        if not changes:
            await answer(interaction, "Nothing changed: name at least one setting.")
            return
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
        policy = await self._change(interaction, rules=None)
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
        await answer(interaction, f"Exempt: {_mentions(policy) or 'none'}.")

    async def _set_exempt(
        self,
        interaction: Interaction,
        role: discord.Role | None,
        channel: discord.abc.GuildChannel | None,
        exempt: bool,
    ) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        roles, channels = ({role.id} if role else frozenset()), ({channel.id} if channel else frozenset())
        if not roles and not channels:
            await answer(interaction, "Nothing changed: name a role or a channel.")
            return
        policy = await self._change(
            interaction,
            exempt_roles=policy.exempt_roles | roles if exempt else policy.exempt_roles - roles,
            exempt_channels=policy.exempt_channels | channels if exempt else policy.exempt_channels - channels,
        )
        await answer(interaction, f"Exempt: {_mentions(policy) or 'none'}.")

    @app_commands.command(name="threshold", description="Set or remove a rule: the score from which an action is taken")
    @app_commands.describe(
        label="label of the model, or a reason why a picture could not be checked",
        action="what to do with the message",
        score="lowest score that triggers the action; leave empty to remove the rule",
        ping="also ping the moderator role",
    )
    @app_commands.guild_only()
    @app_commands.default_permissions(manage_guild=True)
    @needs_manager
    async def threshold(
        self,
        interaction: Interaction,
        label: str,
        action: ActionName,
        score: app_commands.Range[float, 0.0, 1.0] | None = None,
        ping: bool = False,
    ) -> None:
        sidecar, guild = self._sidecar, guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        labels = self._labels()
        # A rule of an earlier model's label can still be removed.
        if label not in labels and label not in {rule.label for rule in policy.effective_rules(sidecar)}:
            text = f"Nothing changed: there is no label `{label[:100]}`. Choose one of {', '.join(labels)}."
            await answer(interaction, text)
            return
        verb = Action[action.upper()]
        rule = None if score is None else ModerationRule(label, score, verb, ping)
        if rule is not None and rule.threshold < ALL_PICTURES and label not in UNJUDGED:
            await confirm(
                interaction,
                f"Every picture scores {score} or more on `{label}`: with this rule, the bot would "
                f"{ON_ALL[verb]} in this server.",
                "Set the rule",
                lambda click: self._set_rule(click, label, verb, rule),
            )
            return
        await self._set_rule(interaction, label, verb, rule)

    async def _set_rule(
        self, interaction: Interaction, label: str, action: Action, rule: ModerationRule | None
    ) -> None:
        """Set a rule, or remove the one for this label and action."""
        sidecar, guild = self._sidecar, guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        policy = policy.without_rule(sidecar, label, action) if rule is None else policy.with_rule(sidecar, rule)
        await self._services.store.set_policy(guild.id, policy)
        await answer(interaction, describe_policy(policy, sidecar, guild))

    @threshold.autocomplete("label")
    async def complete_label(self, interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        """Suggest the labels that contain what is typed; Discord takes 25."""
        matches = [label for label in self._labels() if current.casefold() in label.casefold()]
        return [app_commands.Choice(name=label, value=label) for label in matches[:25]]

    def _labels(self) -> tuple[str, ...]:
        return (*decided(self._sidecar.kind, self._sidecar.labels), *UNJUDGED)
