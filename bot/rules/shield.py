"""A server's settings against waves of pictures, and which limits an author falls under. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from bot.rules.bursts import BurstLimits


@dataclass(frozen=True)
class ShieldPolicy:
    """What counts as a wave in a server, and what is done about one."""

    on: bool = False
    channels: int = 3
    seconds: int = 120
    any_picture: bool = False
    """Whether different pictures count together; otherwise the same one, or nearly."""
    time_out: bool = True
    """Whether the author is timed out, besides the deletion."""
    minutes: int = 60
    """Length of that time-out."""
    spare_moderators: bool = True
    """Whether members with Manage Messages in the channel are left alone."""
    newcomer_days: int = 0
    """Who joined within so many days is a newcomer; 0: nobody is."""
    newcomer_channels: int = 2
    newcomer_seconds: int = 300
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields that a newer version stored, kept as they are."""

    def limits(self, joined: datetime | None, posted: datetime) -> BurstLimits:
        """The limits for who joined and posted then. `joined`: None if unknown."""
        newcomer = joined is not None and posted - joined < timedelta(days=self.newcomer_days)
        if newcomer:
            return BurstLimits(self.newcomer_channels, self.newcomer_seconds, self.any_picture)
        return BurstLimits(self.channels, self.seconds, self.any_picture)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The settings from what any version stored."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values and name != "unknown"}
        return cls(**known, unknown={name: value for name, value in values.items() if name not in known})


def describe_limits(limits: BurstLimits) -> str:
    """A rule in words, as entries and Discord's audit log have it."""
    what = "pictures" if limits.any_picture else "the same picture"
    return f"{what} in {limits.channels} channels within {limits.seconds} s"
