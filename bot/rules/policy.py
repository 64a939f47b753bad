"""What a guild wants done: rules over scores -> one action. Pure: no Discord, no store, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any

from stages.inference.sidecar import Sidecar, decided


class Mode(StrEnum):
    """How far the bot goes in a guild."""

    SHADOW = "shadow"
    """Only logs what it would do."""
    REVIEW = "review"
    """Shows moderators what it found; touches no message."""
    ENFORCE = "enforce"
    """Does what the rules say."""


class Action(IntEnum):
    """What a rule asks for, in order of severity; each one but the first also tells the moderators."""

    LOG = 0
    FLAG = 1
    SPOILER = 2
    DELETE = 3
    TIMEOUT = 4


UNJUDGED: dict[str, str] = {
    "corrupt": "no readable picture",
    "too_large": "over the cap of bytes or pixels",
    "timed_out": "took too long to fetch or to decode",
    "unreachable": "Discord's CDN did not give it",
    "outside": "not on Discord's own hosts",
    "unsupported": "of a format that is not decoded",
    "too_many": "one too many in its message",
    "overloaded": "the queue was full",
    "failed": "the bot itself failed on it; its log says how",
}
"""Verdicts of pictures that cannot be judged. A rule may name them like labels; their score is 1."""

REFUSED, ALLOWED = "refused", "allowed"
"""Verdicts that come from a moderator's decision on the same picture."""


@dataclass(frozen=True)
class Rule:
    """From this score of this label on, do that."""

    label: str
    threshold: float
    action: Action
    ping: bool = False
    """Mention the moderators' role in the mod-log."""


@dataclass(frozen=True)
class Outcome:
    """What the rules make of one picture's scores."""

    action: Action = Action.LOG
    ping: bool = False
    label: str = ""
    score: float = 0.0
    threshold: float | None = None
    """Of the rule that decided; None if no rule was met."""


@dataclass(frozen=True)
class GuildPolicy:
    """A guild's settings."""

    mode: Mode = Mode.SHADOW
    rules: tuple[Rule, ...] | None = None
    """None: the model's own thresholds, each of which flags."""
    modlog: int | None = None
    """Channel that moderators are told in."""
    moderators: int | None = None
    """Role that is pinged."""
    exempt_roles: frozenset[int] = frozenset()
    exempt_channels: frozenset[int] = frozenset()
    skip_age_gated: bool = True
    skip_bots: bool = True
    timeout_minutes: int = 10
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields that a newer version stored; kept as they are."""

    def dumps(self) -> str:
        """As JSON."""
        values = asdict(self)
        for name in ("exempt_roles", "exempt_channels"):
            values[name] = sorted(values[name])
        return json.dumps({**values.pop("unknown"), **values}, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> GuildPolicy:
        """The reverse of `dumps`."""
        values = json.loads(text)
        known = {name: values.pop(name) for name in cls.__dataclass_fields__ if name in values and name != "unknown"}
        if known.get("rules") is not None:
            known["rules"] = tuple(map(_rule, known["rules"]))
        for name in ("exempt_roles", "exempt_channels"):
            known[name] = frozenset(known.get(name, ()))
        return cls(**{**known, "mode": Mode(known.get("mode", Mode.SHADOW)), "unknown": values})

    def effective(self, sidecar: Sidecar) -> tuple[Rule, ...]:
        """The rules in force with this model: the guild's own, else one for each of the model's thresholds."""
        return defaults(sidecar) if self.rules is None else self.rules

    def with_rule(self, sidecar: Sidecar, rule: Rule) -> GuildPolicy:
        """With one rule set in place of that of the same label and action."""
        kept = self.without_rule(sidecar, rule.label, rule.action).rules or ()
        return replace(self, rules=tuple(sorted((*kept, rule), key=lambda each: (each.label, each.action))))

    def without_rule(self, sidecar: Sidecar, label: str, action: Action) -> GuildPolicy:
        """With the rule of this label and action taken out."""
        kept = (rule for rule in self.effective(sidecar) if (rule.label, rule.action) != (label, action))
        return replace(self, rules=tuple(kept))


def _rule(values: Mapping[str, Any]) -> Rule:
    """A stored rule, without what a newer version may have added to it."""
    known = {name: values[name] for name in Rule.__dataclass_fields__ if name in values}
    return Rule(**{**known, "action": Action(values["action"])})


def defaults(sidecar: Sidecar) -> tuple[Rule, ...]:
    """What holds until a guild sets rules of its own: the thresholds that the training chose flag a picture."""
    return tuple(Rule(label, sidecar.thresholds[label], Action.FLAG) for label in decided(sidecar.kind, sidecar.labels))


def outcome(scores: Mapping[str, float], rules: Sequence[Rule]) -> Outcome:
    """What the rules say of a picture with these scores.

    The most severe rule that is met decides, of equals the one with the highest score; any met rule may ask for the
    ping. If none is met, the outcome names the label that came nearest, for the log.
    """
    named = [rule for rule in rules if rule.label in scores]
    met = [rule for rule in named if scores[rule.label] >= rule.threshold]
    if met:
        first = max(met, key=lambda rule: (rule.action, scores[rule.label]))
        ping = any(rule.ping for rule in met)
        return Outcome(first.action, ping, first.label, scores[first.label], first.threshold)
    if named:
        nearest = max(named, key=lambda rule: scores[rule.label] - rule.threshold)
        return Outcome(label=nearest.label, score=scores[nearest.label])
    label = max(scores, key=scores.__getitem__, default="")
    return Outcome(label=label, score=scores.get(label, 0.0))


def refused(label: str, rules: Sequence[Rule]) -> Outcome:
    """What follows from a moderator's decision that the same picture is to go: at least to delete it."""
    found = outcome({label: 1.0}, rules)
    return Outcome(max(found.action, Action.DELETE), found.ping, label, 1.0)


def carried_out(mode: Mode, action: Action) -> Action:
    """What is done of what the rules ask for."""
    if mode is Mode.SHADOW:
        return Action.LOG
    return min(action, Action.FLAG) if mode is Mode.REVIEW else action


def merged(outcomes: Iterable[Outcome]) -> Outcome:
    """One outcome for a message of several pictures: that of the most severe one, with the ping of any."""
    every = list(outcomes)
    worst = max(every, key=lambda each: (each.action, each.threshold is not None, each.score), default=Outcome())
    return replace(worst, ping=any(each.ping for each in every))
