"""A server's policy: rules over scores -> one action. Pure: no Discord, no database, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any

from bot.rules.scopes import EVERYWHERE, Circumstances, Scope
from bot.rules.shield import ShieldPolicy
from bot.rules.strikes import StrikePolicy
from stages.inference.sidecar import Sidecar, decided


class Mode(StrEnum):
    """How far the bot may go in a server."""

    SHADOW = "shadow"
    """Only log what the rules would do."""
    REVIEW = "review"
    """Post matches to the mod-log and leave the messages alone."""
    ENFORCE = "enforce"
    """Do what the rules say."""


class Action(IntEnum):
    """What a rule asks for, in order of severity. Every action except LOG also posts to the mod-log.

    The numbers are stored in databases: never change them.
    """

    LOG = 0
    FLAG = 1
    SPOILER = 2
    DELETE = 3
    TIMEOUT = 4


UNJUDGED: dict[str, str] = {
    "corrupt": "not a readable picture",
    "too_large": "over the limit of bytes or pixels, or of memory in decoding",
    "timed_out": "took too long to download or decode",
    "unreachable": "could not be downloaded from Discord's CDN",
    "outside": "not hosted by Discord",
    "unsupported": "unsupported format",
    "too_many": "over the limit of pictures per message",
    "overloaded": "the queue was full",
    "failed": "internal error, see the bot's log",
}
"""Verdict -> description of a picture that could not be checked. A rule may name it like a label; its score is 1."""

REFUSED, ALLOWED = "refused", "allowed"
"""Verdicts that come from a moderator's decision on the same picture."""

NEVER = 2.0
"""A threshold above every score: the rule's action is not taken in its scope."""
MAX_SCOPED_RULES = 25
"""Of a server: as many as Discord suggests for an option of a command."""


@dataclass(frozen=True)
class ModerationRule:
    """A picture that scores `threshold` or more on `label` triggers `action`."""

    label: str
    threshold: float
    action: Action
    ping: bool = False
    """Mention the moderator role in the mod-log."""


@dataclass(frozen=True)
class ScopedRule(ModerationRule):
    """A rule for a part of the server. There, it replaces the server's rule of the same label and action."""

    scope: Scope = EVERYWHERE

    @property
    def key(self) -> tuple[str, Action, Scope]:
        """A server has one rule for each."""
        return self.label, self.action, self.scope


@dataclass(frozen=True)
class RuleOutcome:
    """What a server's rules ask for on one picture."""

    action: Action = Action.LOG
    ping: bool = False
    label: str = ""
    score: float = 0.0
    threshold: float | None = None
    """Of the rule that decided; None if no rule matched."""


FOREIGN_RULES = "rules of a newer version"
"""Key in `GuildPolicy.unknown` of the scoped rules with conditions that this version does not know."""


@dataclass(frozen=True)
class GuildPolicy:
    """A server's settings."""

    mode: Mode = Mode.SHADOW
    rules: tuple[ModerationRule, ...] | None = None
    """None: flag from the model's own thresholds."""
    modlog: int | None = None
    """Channel id of the mod-log."""
    moderators: int | None = None
    """Role id to ping."""
    exempt_roles: frozenset[int] = frozenset()
    exempt_channels: frozenset[int] = frozenset()
    skip_age_gated: bool = True
    skip_bots: bool = True
    timeout_minutes: int = 10
    act_untold: bool = False
    """Whether to act on messages even if the mod-log cannot be used, so that no moderator is told."""
    copy_threshold: float = 0.97
    """Similarity from which a picture is taken for a copy of one that a moderator decided on, and acted on."""
    scoped_rules: tuple[ScopedRule, ...] = ()
    """Not among `rules`: an older version would apply them to the whole server."""
    exempt_moderators: bool = True
    """Whether pictures of those with Manage Messages are not checked."""
    tell_author: bool = False
    """Whether authors get a direct message, with a button to appeal, when something is done to their message."""
    local_rules: tuple[ScopedRule, ...] = field(default=(), compare=False, repr=False)
    """Of `scoped_rules`, those that decide on one message: see `at`. Never stored."""
    shield: ShieldPolicy = field(default_factory=ShieldPolicy)
    strikes: StrikePolicy = field(default_factory=StrikePolicy)
    evidence: bool = False
    """Whether mod-log entries carry deleted pictures behind a spoiler."""
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields that a newer version stored, kept as they are."""

    def to_json(self) -> str:
        """The settings as JSON, with the unknown fields that `from_json` read."""
        values = asdict(self)
        for name in ("exempt_roles", "exempt_channels"):
            values[name] = sorted(values[name])
        del values["local_rules"]
        unknown = values.pop("unknown")
        foreign = unknown.pop(FOREIGN_RULES, [])
        values["scoped_rules"] = [*map(_scoped_to_json, self.scoped_rules), *foreign]
        for name in ("shield", "strikes"):
            values[name] = {**values[name].pop("unknown"), **values[name]}
        # An older version in the meantime must not delete a newer one's settings.
        return json.dumps({**unknown, **values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GuildPolicy:
        """Settings that any version stored: missing fields get their defaults, unknown ones are kept."""
        values = json.loads(text)
        stored = cls.__dataclass_fields__.keys() - {"unknown", "local_rules"}
        known = {name: values.pop(name) for name in stored if name in values}
        if known.get("rules") is not None:
            known["rules"] = tuple(map(_parse_rule, known["rules"]))
        scoped = known.get("scoped_rules", ())
        known["scoped_rules"] = tuple(_parse_scoped_rule(rule) for rule in scoped if not _is_foreign(rule))
        if foreign := [rule for rule in scoped if _is_foreign(rule)]:
            values[FOREIGN_RULES] = foreign
        for name in ("exempt_roles", "exempt_channels"):
            known[name] = frozenset(known.get(name, ()))
        known["shield"] = ShieldPolicy.from_values(known.get("shield", {}))
        known["strikes"] = StrikePolicy.from_values(known.get("strikes", {}))
        return cls(**{**known, "mode": Mode(known.get("mode", Mode.SHADOW)), "unknown": values})

    def at(self, circumstances: Circumstances) -> GuildPolicy:
        """The policy for one message: its `effective_rules` are those that apply there.

        For each label and action, the rule with the most specific scope decides. Of two that are equally specific, such
        as those for two roles of the author, it is the one with the lower threshold, and then one that pings.
        """
        deciding: dict[tuple[str, Action], ScopedRule] = {}
        for rule in sorted(self.scoped_rules, key=lambda rule: (-rule.threshold, rule.ping)):
            if rule.scope.holds(circumstances):
                other = deciding.setdefault((rule.label, rule.action), rule)
                if rule.scope.specificity(circumstances) >= other.scope.specificity(circumstances):
                    deciding[rule.label, rule.action] = rule
        return replace(self, local_rules=tuple(deciding[key] for key in sorted(deciding)))

    @property
    def asks_about_authors(self) -> bool:
        """Whether a setting depends on an author's roles, permissions or date of joining."""
        scopes = (rule.scope for rule in self.scoped_rules)
        by_rules = any(scope.role is not None or scope.newcomer_days is not None for scope in scopes)
        return bool(self.exempt_roles) or self.exempt_moderators or self.shield.on or by_rules

    def server_rules(self, sidecar: Sidecar) -> tuple[ModerationRule, ...]:
        """The rules for the whole server: its own, or the defaults of the model that is serving."""
        return default_rules(sidecar) if self.rules is None else self.rules

    def effective_rules(self, sidecar: Sidecar) -> tuple[ModerationRule, ...]:
        """The rules for the whole server or, after `at`, for one message."""
        replaced = {(rule.label, rule.action) for rule in self.local_rules}
        others = (rule for rule in self.server_rules(sidecar) if (rule.label, rule.action) not in replaced)
        return (*others, *self.local_rules)

    def inapplicable_rules(self, sidecar: Sidecar) -> tuple[ModerationRule, ...]:
        """The server's own rules on labels that the model does not have: no picture can match them."""
        known = {*sidecar.labels, *UNJUDGED}
        return tuple(rule for rule in (*(self.rules or ()), *self.scoped_rules) if rule.label not in known)

    def with_rule(self, sidecar: Sidecar, rule: ModerationRule) -> GuildPolicy:
        """A policy in which `rule` replaces the rule of the same label and action."""
        others = self.without_rule(sidecar, rule.label, rule.action).rules or ()
        return replace(self, rules=tuple(sorted((*others, rule), key=lambda rule: (rule.label, rule.action))))

    def without_rule(self, sidecar: Sidecar, label: str, action: Action) -> GuildPolicy:
        """A policy without the rule of this label and action. Default rules become the server's own."""
        others = (rule for rule in self.server_rules(sidecar) if (rule.label, rule.action) != (label, action))
        return replace(self, rules=tuple(others))

    def with_scoped_rule(self, rule: ScopedRule) -> GuildPolicy:
        """A policy in which `rule` replaces the rule of the same label, action and scope."""
        return replace(self, scoped_rules=(*self.without_scoped_rule(rule).scoped_rules, rule))

    def without_scoped_rule(self, rule: ScopedRule) -> GuildPolicy:
        """A policy without the rule of the same label, action and scope."""
        return replace(self, scoped_rules=tuple(other for other in self.scoped_rules if other.key != rule.key))


def _parse_rule(values: Mapping[str, Any]) -> ModerationRule:
    """A stored rule, without the fields that a newer version may have added."""
    known = {name: values[name] for name in ModerationRule.__dataclass_fields__ if name in values}
    return ModerationRule(**{**known, "action": Action(values["action"])})


def _parse_scoped_rule(values: Mapping[str, Any]) -> ScopedRule:
    return ScopedRule(**asdict(_parse_rule(values)), scope=Scope(**values["scope"]))


def _is_foreign(values: Mapping[str, Any]) -> bool:
    """Whether a stored rule has a condition that this version does not know.

    Without it, the rule would apply to more than it was meant for: it is kept as it is, and does not apply.
    """
    return bool(values["scope"].keys() - Scope.__dataclass_fields__.keys())


def _scoped_to_json(rule: ScopedRule) -> dict[str, Any]:
    return {**asdict(rule), "scope": {name: value for name, value in asdict(rule.scope).items() if value is not None}}


def default_rules(sidecar: Sidecar) -> tuple[ModerationRule, ...]:
    """One rule per label: flag a picture from the threshold that training chose."""
    labels = decided(sidecar.kind, sidecar.labels)
    return tuple(ModerationRule(label, sidecar.thresholds[label], Action.FLAG) for label in labels)


def apply_rules(scores: Mapping[str, float], rules: Sequence[ModerationRule]) -> RuleOutcome:
    """What the rules ask for on a picture with these scores.

    The most severe matching rule decides; among equals, the one with the highest score. Any matching rule may ask for
    the ping. Without a match, the outcome names the label that came closest to its threshold, for the log.
    """
    candidates = [rule for rule in rules if rule.label in scores]
    matches = [rule for rule in candidates if scores[rule.label] >= rule.threshold]
    if matches:
        decisive = max(matches, key=lambda rule: (rule.action, scores[rule.label]))
        ping = any(rule.ping for rule in matches)
        return RuleOutcome(decisive.action, ping, decisive.label, scores[decisive.label], decisive.threshold)
    if candidates:
        closest = max(candidates, key=lambda rule: scores[rule.label] - rule.threshold)
        return RuleOutcome(label=closest.label, score=scores[closest.label])
    label = max(scores, key=scores.__getitem__, default="")
    return RuleOutcome(label=label, score=scores.get(label, 0.0))


def refused_outcome(label: str, rules: Sequence[ModerationRule]) -> RuleOutcome:
    """The outcome for a picture that a moderator refused before: delete it, or what the label's rules ask beyond."""
    outcome = apply_rules({label: 1.0}, rules)
    return RuleOutcome(max(outcome.action, Action.DELETE), outcome.ping, label, 1.0)


def limit_action(mode: Mode, action: Action) -> Action:
    """The action that a server's mode allows."""
    if mode is Mode.SHADOW:
        return Action.LOG
    return min(action, Action.FLAG) if mode is Mode.REVIEW else action


def merge_outcomes(outcomes: Iterable[RuleOutcome]) -> RuleOutcome:
    """The outcome of a message with several pictures: the most severe one, with a ping if any asks for it."""
    listed = list(outcomes)
    # At equal severity a rule that matched says more than a high score that none did.
    most_severe = max(
        listed,
        key=lambda outcome: (outcome.action, outcome.threshold is not None, outcome.score),
        default=RuleOutcome(),
    )
    return replace(most_severe, ping=any(outcome.ping for outcome in listed))
