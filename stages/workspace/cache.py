"""Content-addressed file cache: shared by parallel runs and worktrees, safe to delete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from stages.workspace.files import replacing


def cache_root() -> Path:
    """The folder for resume state, databases and decoded pictures: `MLPY_CACHE`, or the user's cache folder.

    Everything in it is keyed by content and safe to delete; worktrees and queued runs share it.
    """
    root = os.environ.get("MLPY_CACHE")
    folder = Path(root).expanduser().absolute() if root else platformdirs.user_cache_path("mlpy", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key(*parts: object) -> str:
    """Hash everything that determines a result into a file name: 32 hexadecimal digits of the parts' `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def once(kind: str, name: str, write: Callable[[Path], None]) -> Path:
    """Return the cached file `kind`/`name`; `write` creates it if it is missing.

    Parallel runs that want the same file wait for the first one. A killed run leaves no partial file.
    """
    target = cache_root() / kind / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():  # another run may have written it while this one waited for the lock
                with replacing(target) as aside:
                    write(aside)
    return target
