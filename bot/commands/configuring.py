"""What a server's managers set: mode, rules, channels, exemptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.actions.execution import lacking
from bot.commands.answering import Interaction, answer, guild_of
from bot.rules.policy import UNJUDGED, Action, GuildPolicy, Mode, Rule
from bot.services import Services
from stages.inference.sidecar import Sidecar, decided

manager = app_commands.checks.has_permissions(manage_guild=True)
ExemptChannel = discord.TextChannel | discord.ForumChannel | discord.VoiceChannel | discord.CategoryChannel
ActionName = Literal["log", "flag", "spoiler", "delete", "timeout"]


def described(policy: GuildPolicy, sidecar: Sidecar) -> str:
    """A guild's settings, in words."""
    known = {*sidecar.labels, *UNJUDGED}
    lines = [
        f"**mode** {policy.mode.value}",
        f"**mod-log** {f'<#{policy.modlog}>' if policy.modlog else 'none: set one by /channel modlog'}",
        f"**moderators** {f'<@&{policy.moderators}>' if policy.moderators else 'none'}",
        f"**time-out** {policy.timeout_minutes} min",
        f"**age-gated channels** {'skipped' if policy.skip_age_gated else 'looked at'}",
        f"**other bots** {'skipped' if policy.skip_bots else 'looked at'}",
        f"**exempt** {_mentions(policy) or 'nobody'}",
        f"**rules** {'(those of the model, until you set one by /threshold)' if policy.rules is None else ''}",
    ]
    for rule in policy.effective(sidecar):
        ping = ", with a ping" if rule.ping else ""
        gone = "" if rule.label in known else " (this model has no such label)"
        lines.append(f"- {rule.label} from {rule.threshold:.3f}: {rule.action.name.lower()}{ping}{gone}")
    lines.append("What no rule names is only logged.")
    return "\n".join(lines)


def _mentions(policy: GuildPolicy) -> str:
    roles = [f"<@&{each}>" for each in sorted(policy.exempt_roles)]
    return ", ".join(roles + [f"<#{each}>" for each in sorted(policy.exempt_channels)])


@app_commands.guild_only()
@app_commands.default_permissions(manage_guild=True)
class Configuring(commands.Cog):
    """For those who may manage the server."""

    policy = app_commands.Group(
        name="policy",
        description="What is done about pictures",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    channel = app_commands.Group(
        name="channel",
        description="Where moderators are told",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    exempt = app_commands.Group(
        name="exempt",
        description="Whose pictures are not looked at",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _sidecar(self) -> Sidecar:
        return self._services.serving.current.predictor.sidecar

    async def _set(self, interaction: Interaction, **values: Any) -> GuildPolicy:
        guild = guild_of(interaction)
        policy = replace(await self._services.store.policy(guild.id), **values)
        await self._services.store.set_policy(guild.id, policy)
        return policy

    @policy.command(name="show", description="Show this server's settings")
    @manager
    async def show(self, interaction: Interaction) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        await answer(interaction, described(policy, self._sidecar)[:2000])

    @policy.command(name="set", description="Set how far the bot goes, and what it skips")
    @app_commands.describe(
        mode="shadow only logs, review asks moderators, enforce does what the rules say",
        moderators="role that is pinged where a rule asks for it",
        timeout_minutes="how long a time-out lasts",
        skip_age_gated="leave age-restricted channels alone",
        skip_bots="leave other bots' messages alone",
    )
    @manager
    async def change(
        self,
        interaction: Interaction,
        mode: Mode | None = None,
        moderators: discord.Role | None = None,
        timeout_minutes: app_commands.Range[int, 1, 40320] | None = None,
        skip_age_gated: bool | None = None,
        skip_bots: bool | None = None,
    ) -> None:
        values = {
            "mode": mode,
            "moderators": moderators.id if moderators else None,
            "timeout_minutes": timeout_minutes,
            "skip_age_gated": skip_age_gated,
            "skip_bots": skip_bots,
        }
        given = {name: value for name, value in values.items() if value is not None}
        if not given:
            await answer(interaction, "Nothing was set: name at least one setting.")
            return
        policy = await self._set(interaction, **given)
        hint = "" if policy.modlog or policy.mode is Mode.SHADOW else "\nSet a mod-log, too: `/channel modlog`."
        if (
            moderators
            and not moderators.mentionable
            and not guild_of(interaction).me.guild_permissions.mention_everyone
        ):
            hint += f"\nPings will be silent: let anyone mention {moderators.mention}, in its role's settings."
        await answer(interaction, (described(policy, self._sidecar) + hint)[:2000])

    @channel.command(name="modlog", description="Set the channel that moderators are told in")
    @manager
    async def modlog(self, interaction: Interaction, channel: discord.TextChannel) -> None:
        if missing := lacking(
            guild_of(interaction).get_channel(channel.id),
            view_channel=True,
            send_messages=True,
            embed_links=True,
            attach_files=True,
        ):
            await answer(interaction, f"Not set: {missing}.")
            return
        await self._set(interaction, modlog=channel.id)
        await answer(interaction, f"Moderators are told in {channel.mention} from now on.")

    @channel.command(name="clear", description="Tell moderators nowhere")
    @manager
    async def clear(self, interaction: Interaction) -> None:
        await self._set(interaction, modlog=None)
        await answer(interaction, "Moderators are told nowhere; what is found is still logged.")

    @exempt.command(name="add", description="Leave a role's or a channel's pictures alone")
    @manager
    async def exempt_add(
        self,
        interaction: Interaction,
        role: discord.Role | None = None,
        channel: ExemptChannel | None = None,
    ) -> None:
        await self._exempt(interaction, role, channel, True)

    @exempt.command(name="remove", description="Look at a role's or a channel's pictures again")
    @manager
    async def exempt_remove(
        self,
        interaction: Interaction,
        role: discord.Role | None = None,
        channel: ExemptChannel | None = None,
    ) -> None:
        await self._exempt(interaction, role, channel, False)

    @exempt.command(name="list", description="Show whose pictures are not looked at")
    @manager
    async def exempted(self, interaction: Interaction) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        await answer(interaction, f"Exempt: {_mentions(policy) or 'nobody'}.")

    async def _exempt(
        self,
        interaction: Interaction,
        role: discord.Role | None,
        channel: discord.abc.GuildChannel | None,
        exempt: bool,
    ) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        roles, channels = ({role.id} if role else set()), ({channel.id} if channel else set())
        if not roles and not channels:
            await answer(interaction, "Nothing was changed: name a role or a channel.")
            return
        policy = await self._set(
            interaction,
            exempt_roles=policy.exempt_roles | roles if exempt else policy.exempt_roles - roles,
            exempt_channels=policy.exempt_channels | channels if exempt else policy.exempt_channels - channels,
        )
        await answer(interaction, f"Exempt: {_mentions(policy) or 'nobody'}.")

    @app_commands.command(name="threshold", description="From which score of a label on something is done")
    @app_commands.describe(
        label="a label of the model, or a reason why a picture cannot be judged",
        action="what is done",
        score="from this score on; leave it out to take the rule away",
        ping="ping the moderators' role, too",
    )
    @manager
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
        known = self._labels()
        if label not in known and label not in {rule.label for rule in policy.effective(sidecar)}:
            await answer(interaction, f"Nothing was set: no label `{label[:100]}`; there are {', '.join(known)}.")
            return
        chosen = Action[action.upper()]
        if score is None:
            policy = policy.without_rule(sidecar, label, chosen)
        else:
            policy = policy.with_rule(sidecar, Rule(label, score, chosen, ping))
        await self._services.store.set_policy(guild.id, policy)
        await answer(interaction, described(policy, sidecar)[:2000])

    @threshold.autocomplete("label")
    async def labels(self, interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        found = [label for label in self._labels() if current.casefold() in label.casefold()]
        return [app_commands.Choice(name=label, value=label) for label in found[:25]]

    def _labels(self) -> tuple[str, ...]:
        return (*decided(self._sidecar.kind, self._sidecar.labels), *UNJUDGED)
