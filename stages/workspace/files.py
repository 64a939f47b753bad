"""Atomic file writes: a reader sees the old file or the new one, never a partial one."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of every temporary file; `.gitignore` and `.dvcignore` know it."""
RANDOM = "?" * 8
"""What `mkstemp` puts into a name."""
TEMPORARY = re.compile(rf"\.(.*)\.\w+{re.escape(PARTIAL)}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it replaces `target` only if the block ends without an error.

    This also keeps DVC's cache intact: an out may be a read-only link into it, and the rename replaces the link
    instead of writing through it.
    """
    with temporary(target) as aside:
        yield aside
        aside.chmod(0o644)  # mkstemp creates 0600, which DVC's cache would keep
        aside.replace(target)


@contextlib.contextmanager
def temporary(beside: Path) -> Iterator[Path]:
    """Yield an empty temporary file in the folder of `beside`; it is deleted when the block ends.

    Those that killed processes left there for the same file are deleted first. Write to the file itself: another file
    that is renamed to its path looks like a leftover to a process that runs at the same time.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    _sweep(beside)
    handle, aside = _locked(beside)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)
        os.close(handle)


def _locked(beside: Path) -> tuple[int, Path]:
    """Create a temporary file and lock it, which tells other processes that its writer lives."""
    name = TEMPORARY.sub(r"\1", beside.name)  # beside a temporary file: another one for the same target
    while True:
        handle, path = tempfile.mkstemp(prefix=f".{name}.", suffix=PARTIAL, dir=beside.parent)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # 0 if another process swept it before it was locked
            return handle, Path(path)
        os.close(handle)


def _sweep(beside: Path) -> None:
    """Delete the temporary files for `beside` that killed processes left."""
    for leftover in beside.parent.glob(f".{glob.escape(beside.name)}.{RANDOM}{PARTIAL}"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:  # another process may sweep as well
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock (flock) on a file; not if there is no file."""
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def linked(file: Path, target: Path) -> Path:
    """Make `target` a hard link to a file, or a copy of it if that is on another file system; returns `target`.

    The mode of a link stays the file's own.
    """
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(file, aside)
        except OSError:
            shutil.copyfile(file, aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)  # also where both were links to one file, which are not renamed
    return target
