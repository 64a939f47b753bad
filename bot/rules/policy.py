"""A server's policy: rules over scores -> one action. Pure: no Discord, no database, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any

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


@dataclass(frozen=True)
class ModerationRule:
    """A picture that scores `threshold` or more on `label` triggers `action`."""

    label: str
    threshold: float
    action: Action
    ping: bool = False
    """Mention the moderator role in the mod-log."""


@dataclass(frozen=True)
class RuleOutcome:
    """What a server's rules ask for on one picture."""

    action: Action = Action.LOG
    ping: bool = False
    label: str = ""
    score: float = 0.0
    threshold: float | None = None
    """Of the rule that decided; None if no rule matched."""


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
    copy_threshold: float = 0.94
    """Similarity from which a picture is taken for a copy of one that a moderator decided on, and acted on."""
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields that a newer version stored, kept as they are."""

    def to_json(self) -> str:
        """The settings as JSON, with the unknown fields that `from_json` read."""
        values = asdict(self)
        for name in ("exempt_roles", "exempt_channels"):
            values[name] = sorted(values[name])
        # An older version in the meantime must not delete a newer one's settings.
        return json.dumps({**values.pop("unknown"), **values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GuildPolicy:
        """Settings that any version stored: missing fields get their defaults, unknown ones are kept."""
        values = json.loads(text)
        known = {name: values.pop(name) for name in cls.__dataclass_fields__ if name in values and name != "unknown"}
        if known.get("rules") is not None:
            known["rules"] = tuple(map(_parse_rule, known["rules"]))
        for name in ("exempt_roles", "exempt_channels"):
            known[name] = frozenset(known.get(name, ()))
        return cls(**{**known, "mode": Mode(known.get("mode", Mode.SHADOW)), "unknown": values})

    def effective_rules(self, sidecar: Sidecar) -> tuple[ModerationRule, ...]:
        """The server's own rules, or the defaults of the model that is serving."""
        return default_rules(sidecar) if self.rules is None else self.rules

    def inapplicable_rules(self, sidecar: Sidecar) -> tuple[ModerationRule, ...]:
        """The server's own rules on labels that the model does not have: no picture can match them."""
        known = {*sidecar.labels, *UNJUDGED}
        return tuple(rule for rule in self.rules or () if rule.label not in known)

    def with_rule(self, sidecar: Sidecar, rule: ModerationRule) -> GuildPolicy:
        """A policy in which `rule` replaces the rule of the same label and action."""
        others = self.without_rule(sidecar, rule.label, rule.action).rules or ()
        return replace(self, rules=tuple(sorted((*others, rule), key=lambda rule: (rule.label, rule.action))))

    def without_rule(self, sidecar: Sidecar, label: str, action: Action) -> GuildPolicy:
        """A policy without the rule of this label and action. Default rules become the server's own."""
        others = (rule for rule in self.effective_rules(sidecar) if (rule.label, rule.action) != (label, action))
        return replace(self, rules=tuple(others))


def _parse_rule(values: Mapping[str, Any]) -> ModerationRule:
    """A stored rule, without the fields that a newer version may have added."""
    known = {name: values[name] for name in ModerationRule.__dataclass_fields__ if name in values}
    return ModerationRule(**{**known, "action": Action(values["action"])})


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
