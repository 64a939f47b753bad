"""How far each channel has been checked: all messages up to its position are done with. Pure: no Discord, no clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping


class Positions:
    """Positions of channels, which never pass a message in progress, nor a gap: messages that were missed."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}
        self._in_progress: dict[int, set[int]] = {}
        self._gaps: dict[int, int] = {}
        """Channel -> the position from which on messages were missed."""
        self._guild_of: dict[int, int] = {}
        self._known: set[int] = set()
        """Servers whose gaps are known."""
        self._saved: dict[int, int] = {}

    @contextlib.contextmanager
    def checking(self, guild: int, channel: int, message: int) -> Iterator[None]:
        """A message is being checked. If that is broken off, the channel's position stays before it."""
        self._guild_of[channel] = guild
        self._newest[channel] = max(message, self._newest.get(channel, 0))
        pending = self._in_progress.setdefault(channel, set())
        pending.add(message)
        broken_off = True
        try:
            yield
            broken_off = False
        except Exception:
            broken_off = False  # an error would come again
            raise
        finally:
            if not broken_off:
                pending.discard(message)

    def position(self, channel: int) -> int:
        """All messages of a channel up to this id are done with; 0 if nothing is known."""
        ends = [self._newest.get(channel, 0)]
        ends += [message - 1 for message in self._in_progress.get(channel, ())]
        if channel in self._gaps:
            ends.append(self._gaps[channel])
        return min(ends)

    def forget_session(self, concerns: Callable[[int], bool]) -> None:
        """A session was lost, and with it what came meanwhile, in the servers that `concerns` says."""
        for guild in list(filter(concerns, self._known)):
            self._known.discard(guild)
            for channel in [channel for channel, of in self._guild_of.items() if of == guild]:
                self._gaps[channel] = self.position(channel)  # what is seen from now on comes after it

    def is_known(self, guild: int) -> bool:
        """Whether the gaps of a server are known."""
        return guild in self._known

    def begin(self, guild: int, gaps: Mapping[int, int], others: Mapping[int, int]) -> None:
        """From now on every message of a server is seen.

        Args:
            guild: server id.
            gaps: channel -> position, for those with messages after it that were missed.
            others: channel -> newest message, for those without.
        """
        for channel, position in gaps.items():
            self._guild_of[channel] = guild
            self._gaps[channel] = position
            self._newest[channel] = max(position, self._newest.get(channel, 0))
        for channel, message in others.items():
            self._guild_of[channel] = guild
            self._gaps.pop(channel, None)
            self._newest[channel] = max(message, self._newest.get(channel, 0))
        self._known.add(guild)

    def gaps(self, guild: int) -> dict[int, int]:
        """The channels of a server with messages that were missed."""
        return {channel: start for channel, start in self._gaps.items() if self._guild_of[channel] == guild}

    def shrink_gap(self, channel: int, message: int) -> None:
        """The messages of a gap are done with up to this one."""
        if channel in self._gaps:
            self._gaps[channel] = max(message, self._gaps[channel])
            self._newest[channel] = max(message, self._newest.get(channel, 0))

    def close_gap(self, channel: int) -> None:
        """Nothing is left that was missed."""
        self._gaps.pop(channel, None)

    def take_changed(self) -> list[tuple[int, int, int]]:
        """Positions that changed since the last call: server, channel, message."""
        changed = []
        for channel, guild in self._guild_of.items():
            position = self.position(channel)
            # What came before the gaps were known may lie behind one.
            if guild in self._known and position > self._saved.get(channel, 0):
                self._saved[channel] = position
                changed.append((guild, channel, position))
        return changed
