"""Things computed once: files under the cache root, keyed by content, shared by parallel runs, safe to delete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from stages.workspace.files import replacing


def cache_root() -> Path:
    """The one folder for resume state, databases and decoded pictures: `MLPY_CACHE`, or the user's cache folder.

    Everything in it is keyed by content and safe to delete; worktrees and queued runs share it.
    """
    root = os.environ.get("MLPY_CACHE")
    folder = Path(root).expanduser().absolute() if root else platformdirs.user_cache_path("mlpy", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key(*parts: object) -> str:
    """A file name's worth of hash for whatever decides a result. `parts` are told apart by their `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def once(kind: str, name: str, write: Callable[[Path], None]) -> Path:
    """The cached file `kind`/`name`; if there is none, `write` makes it: aside, then renamed.

    Parallel runs that want the same file wait for the first one, and one that is killed leaves nothing behind.
    """
    target = cache_root() / kind / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                with replacing(target) as aside:
                    write(aside)
    return target
