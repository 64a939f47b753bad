"""Files that are replaced whole: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes `target`'s place only when the block ends without an error.

    A reader sees the old file or the whole new one. A linked DVC out is read-only and shared with the cache: the
    rename unlinks it, and never writes through it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)  # mkstemp's 0600 would travel into DVC's cache
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
