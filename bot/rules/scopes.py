"""Parts of a server that a rule may be for: a channel or category, a role, newcomers. Pure: no Discord, no clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Circumstances:
    """Where a message was posted and by whom."""

    channels: tuple[int, ...] = ()
    """Ids of its channel and its category, if it has one. A thread or forum post counts as its parent channel."""
    roles: frozenset[int] = frozenset()
    """Of the author; none if they are not a member, such as webhooks and those who have left."""
    member_days: float | None = None
    """Days since the author joined; None if they are not a member. Then no rule for newcomers applies."""


@dataclass(frozen=True)
class Scope:
    """Where a rule applies: all conditions that are set have to hold. None is set: in the whole server."""

    channel: int | None = None
    """Id of a channel or a category."""
    role: int | None = None
    """Id of a role that the author has."""
    newcomer_days: int | None = None
    """The author joined less than so many days ago."""

    def holds(self, circumstances: Circumstances) -> bool:
        """Whether a message is within the scope."""
        days = circumstances.member_days
        return (
            (self.channel is None or self.channel in circumstances.channels)
            and (self.role is None or self.role in circumstances.roles)
            and (self.newcomer_days is None or (days is not None and days < self.newcomer_days))
        )

    def specificity(self, circumstances: Circumstances) -> tuple[int, bool, bool, int]:
        """How closely the scope fits a message within it; the greatest decides.

        A channel comes before its category, both before a role, a role before newcomers, and of two scopes for
        newcomers the one with fewer days.
        """
        # Channels are listed from the inside out, the category last.
        place = 0 if self.channel is None else len(circumstances.channels) - circumstances.channels.index(self.channel)
        return place, self.role is not None, self.newcomer_days is not None, -(self.newcomer_days or 0)


EVERYWHERE = Scope()
