"""A server's rules: for all of it, or for a channel, a role or newcomers. Each shows what it would have matched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Literal

import discord
from discord import app_commands

from bot.commands.answering import DeferringCog, Interaction, answer, guild_of, plural
from bot.commands.confirming import confirm
from bot.commands.describing import describe_condition, describe_policy, describe_rule
from bot.commands.rights import needs_manager
from bot.operation.previews import RulePreview, preview_rule
from bot.rules.policy import (
    MAX_SCOPED_RULES,
    NEVER,
    UNJUDGED,
    Action,
    GuildPolicy,
    Mode,
    ModerationRule,
    ScopedRule,
)
from bot.rules.scopes import EVERYWHERE, Scope
from bot.services import Services
from bot.storage.tables import decisions
from stages.inference.sidecar import Sidecar, decided

ScopeChannel = (
    discord.TextChannel | discord.ForumChannel | discord.VoiceChannel | discord.StageChannel | discord.CategoryChannel
)
ActionName = Literal["log", "flag", "spoiler", "delete", "timeout"]

ON_ALL = {
    Action.LOG: "log every picture",
    Action.FLAG: "flag every picture",
    Action.SPOILER: "repost every message with a picture behind a spoiler",
    Action.DELETE: "delete every message with a picture",
    Action.TIMEOUT: "time out everyone who posts a picture",
}
ALL_PICTURES = 0.01
"""A rule from a lower score on matches nearly every picture."""
PREVIEW_DAYS = 30
MAX_PREVIEWED = 20_000
"""Decisions that a preview looks at, newest first."""
ORDER = (
    "-# For each label and action, the most specific rule decides: channel, then category, role, newcomers, and the "
    "whole server last. Of two equals, such as two roles, the lower score decides."
)


def describe_preview(preview: RulePreview, rule: ModerationRule, days: int) -> str:
    """What a rule would have matched, in a sentence or two."""
    period = f"the last {plural(days, 'day')}"
    if not preview.pictures:
        return f"Preview: no pictures were checked on `{rule.label}` in {period}."
    of = f"the newest {preview.pictures:,}" if preview.pictures >= MAX_PREVIEWED else f"{preview.pictures:,}"
    text = f"Preview: in {period}, this rule would have matched {preview.matches:,} of {of} pictures."
    if reviewed := preview.removed + preview.kept:
        text += (
            f" Moderators reviewed {reviewed:,} of these: they removed {preview.removed:,} and kept {preview.kept:,}."
        )
    elif preview.matches:
        text += " Moderators reviewed none of these."
    scope = rule.scope if isinstance(rule, ScopedRule) else EVERYWHERE
    if scope.role is not None or scope.newcomer_days is not None:
        text += " This counts everyone's pictures: roles and join dates are not stored."
    return text


def rule_id(rule: ModerationRule) -> str:
    """A short name of a rule's label, action and scope, for the option of a command."""
    scope = asdict(rule.scope) if isinstance(rule, ScopedRule) else {}
    return hashlib.sha256(json.dumps([rule.label, rule.action, scope]).encode()).hexdigest()[:12]


class Rules(DeferringCog):
    """`/rule` and its short form `/threshold`, for members with Manage Server."""

    rule = app_commands.Group(
        name="rule",
        description="Rules for the whole server, a channel, a role or newcomers",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _sidecar(self) -> Sidecar:
        return self._services.serving.current.predictor.sidecar

    @property
    def _labels(self) -> tuple[str, ...]:
        return (*decided(self._sidecar.kind, self._sidecar.labels), *UNJUDGED)

    @rule.command(name="add", description="Set a rule, for the whole server or a part of it")
    @app_commands.describe(
        label="label of the model, or a reason why a picture could not be checked",
        action="what to do with the message",
        score="lowest score that triggers the action; leave empty to never take it there",
        channel="only in this channel or category, with its threads and posts",
        role="only for members with this role",
        newcomer_days="only for members who joined less than so many days ago",
        ping="also ping the moderator role",
    )
    @needs_manager
    async def add(
        self,
        interaction: Interaction,
        label: str,
        action: ActionName,
        score: app_commands.Range[float, 0.0, 1.0] | None = None,
        channel: ScopeChannel | None = None,
        role: discord.Role | None = None,
        newcomer_days: app_commands.Range[int, 1, 365] | None = None,
        ping: bool = False,
    ) -> None:
        scope = Scope(channel.id if channel else None, role.id if role else None, newcomer_days)
        verb = Action[action.upper()]
        if scope == EVERYWHERE and score is None:
            await answer(interaction, "Nothing changed: name a score, or a part of the server where to never do that.")
        elif scope == EVERYWHERE:
            await self._add(interaction, ModerationRule(label, score or 0.0, verb, ping))
        else:
            await self._add(interaction, ScopedRule(label, NEVER if score is None else score, verb, ping, scope))

    @rule.command(name="list", description="List all rules")
    @needs_manager
    async def list_rules(self, interaction: Interaction) -> None:
        policy = await self._services.store.policy(guild_of(interaction).id)
        await answer(interaction, "", embed=self._as_list(policy))

    @rule.command(name="remove", description="Remove a rule")
    @app_commands.describe(rule="the rule, chosen from the list")
    @needs_manager
    async def remove(self, interaction: Interaction, rule: str) -> None:
        guild = guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        chosen = next((each for each in self._all_rules(policy) if rule_id(each) == rule), None)
        if chosen is None:
            await answer(interaction, "Nothing changed: there is no such rule. Choose one of the list.")
            return
        changed = await self._services.store.change_policy(guild.id, lambda policy: self._without(policy, chosen))
        await answer(interaction, f"Removed: {describe_rule(chosen, self._sidecar)[2:]}.", embed=self._as_list(changed))

    @remove.autocomplete("rule")
    async def complete_rule(self, interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        """Suggest the rules that contain what is typed, those with a scope first."""
        guild = guild_of(interaction)
        rules = self._all_rules(await self._services.store.policy(guild.id))
        named = [(_plain(rule, guild)[:100], rule_id(rule)) for rule in rules]
        matches = [each for each in named if current.casefold() in each[0].casefold()]
        return [app_commands.Choice(name=name, value=value) for name, value in matches[:25]]

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
        verb = Action[action.upper()]
        if score is not None:
            await self._add(interaction, ModerationRule(label, score, verb, ping))
            return
        guild = guild_of(interaction)
        if await self._is_known(interaction, label):
            rule = ModerationRule(label, NEVER, verb)
            policy = await self._services.store.change_policy(guild.id, lambda policy: self._without(policy, rule))
            await answer(interaction, describe_policy(policy, self._sidecar, guild))

    @add.autocomplete("label")
    @threshold.autocomplete("label")
    async def complete_label(self, interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        """Suggest the labels that contain what is typed; Discord takes 25."""
        matches = [label for label in self._labels if current.casefold() in label.casefold()]
        return [app_commands.Choice(name=label, value=label) for label in matches[:25]]

    async def _is_known(self, interaction: Interaction, label: str) -> bool:
        """Whether a rule may name the label. If not, say so."""
        policy = await self._services.store.policy(guild_of(interaction).id)
        # A rule of an earlier model's label can still be changed and removed.
        if label in self._labels or label in {rule.label for rule in self._all_rules(policy)}:
            return True
        text = f"Nothing changed: there is no label `{label[:100]}`. Choose one of {', '.join(self._labels)}."
        await answer(interaction, text)
        return False

    async def _add(self, interaction: Interaction, rule: ModerationRule) -> None:
        """Set a rule, at once or after a confirmation. Either way, say what it would have matched."""
        if not await self._is_known(interaction, rule.label):
            return
        guild = guild_of(interaction)
        policy = await self._services.store.policy(guild.id)
        if isinstance(rule, ScopedRule) and len(policy.with_scoped_rule(rule).scoped_rules) > MAX_SCOPED_RULES:
            text = f"Nothing changed: a server can have {MAX_SCOPED_RULES} rules with a scope. Remove one first."
            await answer(interaction, text)
            return
        preview = await self._preview(guild, rule)
        question = ""
        if rule.threshold < ALL_PICTURES and rule.label not in UNJUDGED:
            where = "there" if isinstance(rule, ScopedRule) else "in this server"
            question = (
                f"Every picture scores {rule.threshold} or more on `{rule.label}`: with this rule, the bot would "
                f"{ON_ALL[rule.action]} {where}."
            )
        elif policy.mode is Mode.ENFORCE and rule.action > Action.FLAG and rule.threshold < NEVER:
            question = f"The bot would act on messages at once: {describe_rule(rule, self._sidecar)[2:]}."
        if question:
            await confirm(
                interaction,
                f"{question}\n{preview}",
                "Set the rule",
                lambda click: self._set(click, rule, ""),
                manage_guild=True,
            )
        else:
            await self._set(interaction, rule, preview)

    async def _set(self, interaction: Interaction, rule: ModerationRule, preview: str) -> None:
        guild, sidecar = guild_of(interaction), self._sidecar
        if isinstance(rule, ScopedRule):
            changed = await self._services.store.change_policy(guild.id, lambda policy: policy.with_scoped_rule(rule))
            text = f"{describe_rule(rule, sidecar)[2:]}."
            await answer(interaction, "\n".join(filter(None, (text, preview))), embed=self._as_list(changed))
            return
        changed = await self._services.store.change_policy(guild.id, lambda policy: policy.with_rule(sidecar, rule))
        await answer(interaction, "\n".join(filter(None, (describe_policy(changed, sidecar, guild), preview))))

    def _without(self, policy: GuildPolicy, rule: ModerationRule) -> GuildPolicy:
        if isinstance(rule, ScopedRule):
            return policy.without_scoped_rule(rule)
        return policy.without_rule(self._sidecar, rule.label, rule.action)

    def _all_rules(self, policy: GuildPolicy) -> tuple[ModerationRule, ...]:
        return (*policy.scoped_rules, *policy.server_rules(self._sidecar))

    def _as_list(self, policy: GuildPolicy) -> discord.Embed:
        """All rules, of the whole server first: an embed has room for them."""
        lines = [describe_rule(rule, self._sidecar) for rule in policy.server_rules(self._sidecar)]
        if policy.scoped_rules:
            lines.append("**For parts of the server**")
            lines += [describe_rule(rule, self._sidecar) for rule in policy.scoped_rules]
            lines.append(ORDER)
        return discord.Embed(title="Rules", description="\n".join(lines)[:4096] or "There are no rules.")

    async def _preview(self, guild: discord.Guild, rule: ModerationRule) -> str:
        """What a rule would have matched."""
        if rule.threshold >= NEVER:
            return ""
        store = self._services.store
        days = min(PREVIEW_DAYS, self._services.settings.retention)
        conditions = [decisions.c.guild_id == guild.id, decisions.c.created_at >= store.now() - days * 86400]
        if isinstance(rule, ScopedRule) and rule.scope.channel is not None:
            conditions.append(decisions.c.channel_id.in_(_channels_within(guild, rule.scope.channel)))
        rows = await store.decisions(*conditions, limit=MAX_PREVIEWED)
        # In a worker thread: with many decisions this takes long enough to hold heartbeats up.
        preview = await self._services.judge.run_in_thread(preview_rule, rows, rule)
        return describe_preview(preview, rule, days)


def _channels_within(guild: discord.Guild, channel_id: int) -> list[int]:
    """A channel, or the channels of a category, with the threads that the bot knows of."""
    channels = {channel.id for channel in guild.channels if channel_id in (channel.id, channel.category_id)}
    return sorted(channels | {thread.id for thread in guild.threads if thread.parent_id in channels})


def _plain(rule: ModerationRule, guild: discord.Guild) -> str:
    """A rule without markup, for Discord's list of suggestions."""
    parts = [describe_condition(rule)]
    if isinstance(rule, ScopedRule):
        scope = rule.scope
        if scope.channel is not None:
            channel = guild.get_channel(scope.channel)
            parts.append(f"#{channel.name}" if channel else "a deleted channel")
        if scope.role is not None:
            role = guild.get_role(scope.role)
            parts.append(f"@{role.name}" if role else "a deleted role")
        if scope.newcomer_days is not None:
            parts.append(f"newcomers, {plural(scope.newcomer_days, 'day')}")
    return " · ".join(parts)
