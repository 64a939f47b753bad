"""What a rule would have matched in the past, and what moderators decided on those pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bot.operation.exports import CONFIRMED, REJECTED
from bot.rules.policy import UNJUDGED, ModerationRule
from bot.storage.tables import Decision


@dataclass(frozen=True)
class RulePreview:
    """Counts of pictures."""

    pictures: int
    """That could have matched: a model scored them on the rule's label, or the rule is for what cannot be checked."""
    matches: int
    removed: int
    """Of the matches, those that moderators removed."""
    kept: int
    """Of the matches, those that moderators let through."""


def preview_rule(decisions: Iterable[Decision], rule: ModerationRule) -> RulePreview:
    """What a rule would have matched. Its scope is the caller's to apply."""
    pictures = matches = removed = kept = 0
    for decision in decisions:
        if rule.label in UNJUDGED:
            score = 1.0 if decision.verdict == rule.label else 0.0
        elif rule.label in decision.scores:
            score = decision.scores[rule.label]
        else:  # scored by a model without that label, or never
            continue
        pictures += 1
        if score >= rule.threshold:
            matches += 1
            removed += decision.state in CONFIRMED
            kept += decision.state in REJECTED
    return RulePreview(pictures, matches, removed, kept)
