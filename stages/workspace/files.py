"""Atomic file writes: a reader sees the old file or the new one, never a partial one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it replaces `target` only if the block ends without an error.

    This also keeps DVC's cache intact: an out may be a read-only link into it, and the rename replaces the link
    instead of writing through it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)  # mkstemp creates 0600, which DVC's cache would keep
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


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
