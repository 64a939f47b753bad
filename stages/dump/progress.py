"""Progress bar for pg_restore: it reports nothing itself, but Linux's /proc shows its position in the dump."""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

INTERVAL = 0.1
"""Least seconds between two looks at /proc."""


class _Parts:
    """How far processes have read the parts of a file."""

    def __init__(self, path: Path, extents: list[tuple[int, int]]) -> None:
        self.path = path
        self.extents = sorted(extents)
        self.total = sum(end - start for start, end in extents)
        self._starts = [start for start, _ in self.extents]
        self._reached = dict.fromkeys(self._starts, 0)
        self._entered: dict[int, set[int]] = defaultdict(set)

    def read(self, process: int) -> int:
        """Look where a process is, and return the number of bytes that all processes have read."""
        current = set()
        for position in _positions(process, self.path):
            part = bisect.bisect_right(self._starts, position) - 1
            if part >= 0 and position <= self.extents[part][1]:
                start = self._starts[part]
                current.add(start)
                self._reached[start] = position - start
        for start, end in self.extents:
            if start in self._entered[process] - current:  # it moved on to another part
                self._reached[start] = end - start
        self._entered[process] |= current
        return sum(self._reached.values())


@contextlib.contextmanager
def bar(path: Path, extents: list[tuple[int, int]]) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over parts of a file; yields the function that updates it, given a reader's process id.

    `extents`: offsets of each part's first byte and of the byte after its last. Without /proc the bar jumps from
    empty to full at the end.
    """
    parts = _Parts(path, extents)
    one_at_a_time = threading.Lock()
    looked = 0.0
    with tqdm(total=parts.total, unit="B", unit_scale=True, disable=None, desc="restore") as tqdm_bar:

        def update(process: int) -> None:
            nonlocal looked
            with one_at_a_time:
                if not tqdm_bar.disable and time.monotonic() > looked + INTERVAL:
                    looked = time.monotonic()
                    tqdm_bar.update(max(0, parts.read(process) - tqdm_bar.n))

        yield update
        tqdm_bar.update(parts.total - tqdm_bar.n)


def _positions(process: int, path: Path) -> list[int]:
    """Offsets at which a process and its children have the file open."""
    positions: list[int] = []
    with contextlib.suppress(OSError):  # the process may end at any moment
        home = Path(f"/proc/{process}")
        for child in (home / f"task/{process}/children").read_text().split():
            positions += _positions(int(child), path)
        for descriptor in (home / "fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.samefile(path):
                    position = (home / "fdinfo" / descriptor.name).read_text().split("\n")[0]
                    positions.append(int(position.removeprefix("pos:")))
    return positions
