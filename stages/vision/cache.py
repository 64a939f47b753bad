"""Things computed once: files under the cache root, keyed by content, shared by parallel runs, safe to delete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from stages.paths import cache_root, replacing


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
