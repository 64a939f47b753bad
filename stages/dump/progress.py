"""Progress bar for pg_restore: it reports nothing itself, but Linux's /proc shows its position in the dump."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm


@contextlib.contextmanager
def bar(path: Path, extents: list[tuple[int, int]]) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over parts of a file; yields the function that updates it, given the reader's process id.

    `extents`: offsets of each part's first byte and of the byte after its last. Without /proc the bar jumps from
    empty to full at the end.
    """
    extents = sorted(extents)
    starts = [start for start, _ in extents]
    reached = dict.fromkeys(starts, 0)
    entered: set[int] = set()
    total = sum(end - start for start, end in extents)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None, desc="restore") as tqdm_bar:

        def update(process: int) -> None:
            current = set()
            for position in _positions(process, path):
                part = bisect.bisect_right(starts, position) - 1
                if part >= 0 and position <= extents[part][1]:
                    current.add(starts[part])
                    reached[starts[part]] = position - starts[part]
            for start, end in extents:
                if start in entered - current:  # its reader moved on to another part
                    reached[start] = end - start
            entered.update(current)
            tqdm_bar.update(max(0, sum(reached.values()) - tqdm_bar.n))

        yield update
        tqdm_bar.update(total - tqdm_bar.n)


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
