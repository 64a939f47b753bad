"""What follows when an author's messages are deleted again and again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Penalty(StrEnum):
    """What is done to an author, from the mildest on."""

    NONE = ""
    TIMEOUT = "timeout"
    KICK = "kick"
    BAN = "ban"


@dataclass(frozen=True)
class StrikePolicy:
    """From which number of deletions on an author is timed out for longer, kicked or banned. 0: never."""

    days: int = 30
    """How long a deletion counts."""
    timeout: int = 0
    minutes: int = 1440
    """Length of that time-out."""
    kick: int = 0
    ban: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields that a newer version stored, kept as they are."""

    @property
    def on(self) -> bool:
        """Whether deletions are counted at all."""
        return bool(self.timeout or self.kick or self.ban)

    def penalty(self, count: int) -> Penalty:
        """What so many deletions lead to: the severest that is due."""
        steps = ((self.ban, Penalty.BAN), (self.kick, Penalty.KICK), (self.timeout, Penalty.TIMEOUT))
        return next((penalty for from_, penalty in steps if 0 < from_ <= count), Penalty.NONE)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The settings from what any version stored."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values and name != "unknown"}
        return cls(**known, unknown={name: value for name, value in values.items() if name not in known})
