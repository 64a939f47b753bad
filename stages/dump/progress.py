"""How far pg_restore has come, in bytes of the dump: it does not tell, but Linux shows where it reads."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm


@contextlib.contextmanager
def reading(path: Path, extents: list[tuple[int, int]]) -> Iterator[Callable[[int], None]]:
    """A progress bar over these parts of a file; yields what to call, with the reader's process id, to move it.

    `extents`: first and past-the-last byte of each part. Where there is no /proc the bar moves at the end only.
    """
    extents = sorted(extents)
    starts = [start for start, _ in extents]
    reached = dict.fromkeys(starts, 0)
    entered: set[int] = set()
    total = sum(end - start for start, end in extents)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None, desc="restore") as bar:

        def look(process: int) -> None:
            here = set()
            for position in _positions(process, path):
                part = bisect.bisect_right(starts, position) - 1
                if part >= 0 and position <= extents[part][1]:
                    here.add(starts[part])
                    reached[starts[part]] = position - starts[part]
            for start, end in extents:
                if start in entered - here:  # its reader moved on
                    reached[start] = end - start
            entered.update(here)
            bar.update(max(0, sum(reached.values()) - bar.n))

        yield look
        bar.update(total - bar.n)


def _positions(process: int, path: Path) -> list[int]:
    """Where a process and its children stand in the file."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        home = Path(f"/proc/{process}")
        for child in (home / f"task/{process}/children").read_text().split():
            found += _positions(int(child), path)
        for descriptor in (home / "fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.samefile(path):
                    position = (home / "fdinfo" / descriptor.name).read_text().split("\n")[0]
                    found.append(int(position.removeprefix("pos:")))
    return found
