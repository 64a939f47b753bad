"""The shield's settings: what counts as a wave of pictures, strikes, evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import discord
from discord import app_commands

from bot.actions.discord_calls import permission_title
from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.commands.confirming import confirm
from bot.commands.rights import needs_manager
from bot.rules.policy import GuildPolicy, Mode
from bot.rules.shield import ShieldPolicy, describe_limits
from bot.rules.strikes import StrikePolicy
from bot.services import Services

ANY_PICTURE = (
    "With `pictures:any`, different pictures count together: a member who posts a picture in each of {channels} "
    "channels within {seconds} s is treated like a scammer. Prefer `pictures:same` unless a raid is going on."
)
EVIDENCE = (
    "The mod-log will then carry deleted pictures in full, behind a spoiler. Everyone who reads the mod-log sees them, "
    "and they stay until someone deletes the entry. Never keep illegal pictures, such as sexual pictures of minors: "
    "posting them again is a crime in itself. Report those to Discord instead."
)


def describe_shield(policy: GuildPolicy, guild: discord.Guild) -> str:
    """The settings, one a line."""
    shield, strikes = policy.shield, policy.strikes
    limits = shield.limits(None, discord.utils.utcnow())
    newcomers = "as for everyone"
    if shield.newcomer_days:
        stricter = replace(limits, channels=shield.newcomer_channels, seconds=shield.newcomer_seconds)
        newcomers = f"{describe_limits(stricter)}, for {plural(shield.newcomer_days, 'day')} after joining"
    lines = [
        f"**Shield** {'on' if shield.on else 'off (turn it on with `/shield set on:True`)'}",
        f"**Wave** {describe_limits(limits)}",
        f"**Newcomers** {newcomers}",
        f"**Action** {_describe_action(policy)}",
        f"**Members with Manage Messages** {'left alone' if shield.spare_moderators else 'treated like others'}",
        f"**Strikes** {_describe_strikes(strikes)}",
        f"**Evidence** {'deleted pictures are kept in the mod-log' if policy.evidence else 'off'}",
    ]
    missing = _missing(policy, guild)
    if missing:
        lines.append(f":warning: The bot is missing permissions: {', '.join(missing)}.")
    return "\n".join(lines)


def _describe_action(policy: GuildPolicy) -> str:
    """What the server's mode makes of a wave."""
    time_out = f", and time the author out for {plural(policy.shield.minutes, 'minute')}"
    action = f"delete every copy{time_out if policy.shield.time_out else ''}"
    if policy.mode is Mode.ENFORCE:
        return action
    what = "it is only logged" if policy.mode is Mode.SHADOW else "moderators are asked first"
    return f"{action} (in {policy.mode.value} mode, {what})"


def _describe_strikes(strikes: StrikePolicy) -> str:
    """What deletions lead to, in words."""
    steps = [
        (strikes.timeout, f"time-out of {plural(strikes.minutes, 'minute')}"),
        (strikes.kick, "kick"),
        (strikes.ban, "ban"),
    ]
    on = [f"{what} from {plural(count, 'deletion')} on" for count, what in steps if count]
    return f"{', '.join(on)}, within {plural(strikes.days, 'day')}" if on else "off"


def _missing(policy: GuildPolicy, guild: discord.Guild) -> list[str]:
    """The permissions that these settings need and the bot lacks."""
    shield, strikes, held = policy.shield, policy.strikes, guild.me.guild_permissions
    needed = {
        "manage_messages": shield.on,
        "moderate_members": (shield.on and shield.time_out) or bool(strikes.timeout),
        "kick_members": bool(strikes.kick),
        "ban_members": bool(strikes.ban),
    }
    return [permission_title(name) for name, wanted in needed.items() if wanted and not getattr(held, name)]


class Shielding(DeferringCog):
    """`/shield`, for members with Manage Server."""

    shield = app_commands.Group(
        name="shield",
        description="Protection against the same picture in many channels",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _change(self, interaction: Interaction, **values: Any) -> None:
        """Replace some of the server's settings, and show them."""
        guild = guild_of(interaction)
        policy = replace(await self._services.store.policy(guild.id), **values)
        await self._services.store.set_policy(guild.id, policy)
        await answer(interaction, describe_shield(policy, guild))

    @shield.command(name="show", description="Show the shield's settings")
    @needs_manager
    async def show(self, interaction: Interaction) -> None:
        guild = guild_of(interaction)
        await answer(interaction, describe_shield(await self._services.store.policy(guild.id), guild))

    @shield.command(name="set", description="Turn the shield on or off, and set what counts as a wave")
    @app_commands.describe(
        on="whether waves are looked for",
        channels="number of channels that make a wave",
        seconds="time within which they do",
        pictures="same: one picture, or nearly the same one; any: different pictures count together",
        action="delete every copy, or also time the author out",
        minutes="length of the time-out in minutes",
        spare_moderators="leave members with Manage Messages alone",
    )
    @needs_manager
    async def set_shield(
        self,
        interaction: Interaction,
        on: bool | None = None,
        channels: app_commands.Range[int, 2, 20] | None = None,
        seconds: app_commands.Range[int, 5, 600] | None = None,
        pictures: Literal["same", "any"] | None = None,
        action: Literal["delete", "timeout"] | None = None,
        minutes: app_commands.Range[int, 1, 40320] | None = None,
        spare_moderators: bool | None = None,
    ) -> None:
        values = {
            "on": on,
            "channels": channels,
            "seconds": seconds,
            "any_picture": None if pictures is None else pictures == "any",
            "time_out": None if action is None else action == "timeout",
            "minutes": minutes,
            "spare_moderators": spare_moderators,
        }
        changes = {name: value for name, value in values.items() if value is not None}
        if not changes:
            await answer(interaction, "Nothing changed: name at least one setting.")
            return
        shield = await self._shield(interaction, changes)
        if shield.any_picture and changes.get("any_picture"):
            question = ANY_PICTURE.format(channels=shield.channels, seconds=shield.seconds)
            await confirm(interaction, question, "Count any pictures", lambda click: self._set(click, changes))
            return
        await self._set(interaction, changes)

    async def _shield(self, interaction: Interaction, changes: dict[str, Any]) -> ShieldPolicy:
        policy = await self._services.store.policy(guild_of(interaction).id)
        return replace(policy.shield, **changes)

    async def _set(self, interaction: Interaction, changes: dict[str, Any]) -> None:
        await self._change(interaction, shield=await self._shield(interaction, changes))

    @shield.command(name="newcomers", description="Stricter limits for members who joined lately")
    @app_commands.describe(
        days="how long a member is a newcomer; 0 turns this off",
        channels="number of channels that make a wave of a newcomer's pictures",
        seconds="time within which they do",
    )
    @needs_manager
    async def newcomers(
        self,
        interaction: Interaction,
        days: app_commands.Range[int, 0, 365],
        channels: app_commands.Range[int, 2, 20] = 2,
        seconds: app_commands.Range[int, 5, 600] = 300,
    ) -> None:
        await self._set(
            interaction, {"newcomer_days": days, "newcomer_channels": channels, "newcomer_seconds": seconds}
        )

    @shield.command(name="strikes", description="What repeated deletions lead to; all of it is off at first")
    @app_commands.describe(
        days="how long a deletion counts",
        timeout="number of deletions that lead to a longer time-out; 0: never",
        minutes="length of that time-out in minutes",
        kick="number of deletions that lead to a kick; 0: never",
        ban="number of deletions that lead to a ban; 0: never",
    )
    @needs_manager
    async def strikes(
        self,
        interaction: Interaction,
        days: app_commands.Range[int, 1, 90] | None = None,
        timeout: app_commands.Range[int, 0, 100] | None = None,  # noqa: ASYNC109 - not of this call
        minutes: app_commands.Range[int, 1, 40320] | None = None,
        kick: app_commands.Range[int, 0, 100] | None = None,
        ban: app_commands.Range[int, 0, 100] | None = None,
    ) -> None:
        values: dict[str, Any] = {"days": days, "timeout": timeout, "minutes": minutes, "kick": kick, "ban": ban}
        policy = await self._services.store.policy(guild_of(interaction).id)
        changes = {name: value for name, value in values.items() if value is not None}
        await self._change(interaction, strikes=replace(policy.strikes, **changes))

    @shield.command(name="evidence", description="Keep deleted pictures in the mod-log, behind a spoiler")
    @app_commands.describe(on="whether deleted pictures are kept")
    @needs_manager
    async def evidence(self, interaction: Interaction, on: bool) -> None:
        if on:
            await confirm(interaction, EVIDENCE, "Keep them", lambda click: self._change(click, evidence=True))
        else:
            await self._change(interaction, evidence=False)
