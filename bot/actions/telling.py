"""Telling moderators what they would not notice otherwise: a lost mod-log, rules that no longer apply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, as_sentence, describe_error, missing_permissions
from bot.rules.policy import GuildPolicy, Mode, ModerationRule, ScopedRule
from bot.rules.scopes import Scope
from bot.services import Services
from bot.storage.database import StoreError
from bot.storage.store import MODLOG, RULES

log = logging.getLogger(__name__)

ModlogChannel = discord.TextChannel | discord.Thread
DAY = 86400
"""Seconds between two notices about the same mod-log."""


def modlog_channel(guild: discord.Guild, policy: GuildPolicy) -> ModlogChannel | None:
    """The mod-log channel, if there is one that the bot knows of."""
    channel = guild.get_channel_or_thread(policy.modlog or 0)  # no channel has the id 0
    return channel if isinstance(channel, ModlogChannel) else None


def modlog_problem(guild: discord.Guild, policy: GuildPolicy) -> str:
    """Why the mod-log cannot be used: a clause; empty if it can."""
    if policy.modlog is None:
        return "no mod-log channel is set"
    channel = modlog_channel(guild, policy)
    if channel is None:
        return "the mod-log channel is deleted or hidden from the bot"
    missing = modlog_permissions_missing(channel)
    return f"{missing} (in the mod-log channel)" if missing else ""


def modlog_permissions_missing(channel: object) -> str:
    """What the bot lacks to use a channel as the mod-log, as in `missing_permissions`."""
    return missing_permissions(channel, view_channel=True, send_messages=True, embed_links=True, attach_files=True)


def untold_reason(guild: discord.Guild, policy: GuildPolicy) -> str:
    """Why nothing may be done to messages, because moderators would not be told of it; empty if it may."""
    return "" if policy.act_untold else modlog_problem(guild, policy)


def describe_modlog_problem(policy: GuildPolicy, problem: str) -> str:
    """The problem, what it means for the server, and what to do about it."""
    if policy.mode is Mode.SHADOW:
        consequence = "In shadow mode, it is not needed."
    elif policy.mode is Mode.REVIEW:
        consequence = "Matches cannot be reviewed."
    elif policy.act_untold:
        consequence = "Messages are still acted on, and nobody is told (`act_untold` is set)."
    else:
        consequence = (
            "Until it can be used again, no message is deleted or reposted and nobody is timed out; "
            "`/policy set act_untold:True` changes that."
        )
    return f"The mod-log cannot be used: {problem}. {consequence} Set a channel with `/channel modlog`."


def describe_scope(scope: Scope) -> str:
    """Where a rule applies, as the end of a sentence; empty if in the whole server."""
    parts = []
    if scope.channel is not None:
        parts.append(f"in <#{scope.channel}>")
    if scope.role is not None:
        parts.append(f"for <@&{scope.role}>")
    if scope.newcomer_days is not None:
        days = "1 day" if scope.newcomer_days == 1 else f"{scope.newcomer_days} days"
        parts.append(f"for members who joined less than {days} ago")
    return " ".join(parts)


class Teller:
    """Tells the moderators of a server: in its mod-log, else in its system channel, else its owner."""

    def __init__(self, services: Services, client: discord.Client) -> None:
        self._services = services
        self._client = client
        self._told: dict[int, int] = {}
        """Server -> Unix time of the last notice about its mod-log."""
        self._checking_rules = asyncio.Lock()

    async def check_modlog(self, guild: discord.Guild, policy: GuildPolicy) -> None:
        """Say that the mod-log is needed and cannot be used, once a day."""
        problem = modlog_problem(guild, policy) if policy.mode is not Mode.SHADOW else ""
        if not problem or (policy.modlog is None and policy.act_untold):  # turned off on purpose
            return
        if self._services.store.now() - await self._last_told(guild.id) < DAY:
            return
        self._told[guild.id] = self._services.store.now()  # before the call: findings may come at once
        log.warning("the mod-log cannot be used: %s", problem, extra={"guild_id": guild.id})
        await self._tell_outside(guild, describe_modlog_problem(policy, problem))
        await self._put(guild.id, MODLOG, str(self._told[guild.id]))

    async def check_rules(self, guild: discord.Guild, policy: GuildPolicy) -> None:
        """Say which rules do not apply any more, because the model that is serving does not have their labels."""
        async with self._checking_rules:  # a start and a switch may come at once
            rules = policy.inapplicable_rules(self._services.serving.current.predictor.sidecar)
            state = "\n".join(sorted({rule.label for rule in rules}))
            if state == await self._get(guild.id, RULES):
                return
            if rules and not await self._tell_of_rules(guild, policy, rules):
                return  # the next start or model tries again
            await self._put(guild.id, RULES, state)

    async def _tell_of_rules(self, guild: discord.Guild, policy: GuildPolicy, rules: Iterable[ModerationRule]) -> bool:
        model = self._services.serving.current
        labels = ", ".join(model.predictor.sidecar.labels)
        text = f"The bot now uses the model {model.release.version}, which does not have all labels of your rules."
        lines = [_describe_rule(rule) for rule in rules]
        whole = "\n".join(
            [
                text,
                "These rules no longer apply:",
                *lines,
                f"The model's labels: {labels}. Set rules with `/threshold`, or use the model's own: `/policy reset`.",
            ]
        )
        log.warning("rules no longer apply", extra={"guild_id": guild.id, "rules": lines})
        channel = modlog_channel(guild, policy)
        if channel and not modlog_problem(guild, policy) and await self._send(channel, whole):
            return True
        # Others can read the next places, so they get no rules.
        return await self._tell_outside(guild, f"{text} Some rules no longer apply: see `/policy show`.")

    async def _tell_outside(self, guild: discord.Guild, text: str) -> bool:
        """Tell in the system channel, else the owner. False if neither works."""
        system = guild.system_channel
        missing = missing_permissions(system, view_channel=True, send_messages=True)
        if system and not missing and await self._send(system, text):
            return True
        if guild.owner_id is None:
            return False
        try:
            owner = await self._client.create_dm(discord.Object(guild.owner_id))
        except DISCORD_ERRORS as error:
            log.warning("could not write to a server's owner: %s", describe_error(error))
            return False
        return await self._send(owner, f"**{discord.utils.escape_markdown(guild.name)}**: {text}")

    async def _send(self, channel: discord.abc.Messageable, text: str) -> bool:
        try:
            await channel.send(text[:2000], allowed_mentions=discord.AllowedMentions.none())
        except DISCORD_ERRORS as error:
            log.warning("could not tell the moderators: %s", as_sentence(describe_error(error)))
            return False
        return True

    async def _last_told(self, guild_id: int) -> int:
        if guild_id not in self._told:
            self._told[guild_id] = int(await self._get(guild_id, MODLOG) or 0)
        return self._told[guild_id]

    async def _get(self, guild_id: int, subject: str) -> str:
        try:
            return await self._services.store.notice(guild_id, subject)
        except StoreError:
            return ""  # telling twice is better than not at all

    async def _put(self, guild_id: int, subject: str, value: str) -> None:
        try:
            await self._services.store.save_notice(guild_id, subject, value)
        except StoreError:
            self._services.metrics.errors.labels("store").inc()


def _describe_rule(rule: ModerationRule) -> str:
    scope = f" {describe_scope(rule.scope)}" if isinstance(rule, ScopedRule) else ""
    return f"- {rule.label} from {rule.threshold:.3f}: {rule.action.name.lower()}{scope}"
