"""A server's settings in words."""

from __future__ import annotations

import discord

from bot.actions.telling import describe_modlog_problem, describe_scope, modlog_problem
from bot.commands.answering import plural
from bot.rules.policy import NEVER, UNJUDGED, GuildPolicy, Mode, ModerationRule, ScopedRule
from stages.inference.sidecar import Sidecar


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
        f"**Moderators' pictures** {'skipped' if policy.exempt_moderators else 'checked'}",
        f"**Authors** {'told by direct message, and may appeal' if policy.tell_author else 'not told'}",
        f"**Exempt** {describe_exemptions(policy) or 'none'}",
        f"**Rules**{default}",
        *(describe_rule(rule, sidecar) for rule in policy.server_rules(sidecar)),
    ]
    if policy.scoped_rules:
        lines.append(f"- {plural(len(policy.scoped_rules), 'rule')} for parts of the server: see `/rule list`")
    lines.append("Everything else is only logged.")
    problem = modlog_problem(guild, policy)
    if problem and (policy.modlog is not None or policy.mode is not Mode.SHADOW):
        lines.append(f":warning: {describe_modlog_problem(policy, problem)}")
    return "\n".join(lines)


def describe_rule(rule: ModerationRule, sidecar: Sidecar) -> str:
    """One rule, as an item of a list."""
    scope = f" {describe_scope(rule.scope)}" if isinstance(rule, ScopedRule) else ""
    unknown = "" if rule.label in {*sidecar.labels, *UNJUDGED} else " (the current model does not have this label)"
    return f"- {describe_condition(rule)}{scope}{unknown}"


def describe_condition(rule: ModerationRule) -> str:
    """What a rule is about and what it does, without its scope."""
    action = rule.action.name.lower()
    if rule.threshold >= NEVER:
        return f"{rule.label}: never {action}"
    return f"{rule.label} from {rule.threshold:.3f}: {action}{', with a ping' if rule.ping else ''}"


def describe_exemptions(policy: GuildPolicy) -> str:
    """The exempt roles and channels as mentions; empty if there are none."""
    roles = [f"<@&{role_id}>" for role_id in sorted(policy.exempt_roles)]
    channels = [f"<#{channel_id}>" for channel_id in sorted(policy.exempt_channels)]
    return ", ".join(roles + channels)
