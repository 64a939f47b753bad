"""Content-addressed file cache: shared by parallel runs and worktrees, safe to delete and safe to damage."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from stages.workspace.files import replacing

log = logging.getLogger(__name__)


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


def once(kind: str, name: str, write: Callable[[Path], None], suffices: Callable[[Path], bool] | None = None) -> Path:
    """Return the cached file `kind`/`name`; `write` creates it if it is missing or damaged.

    Parallel runs that want the same file wait for the first one. A killed run leaves no partial file.

    Args:
        kind: folder of the cache.
        name: of the file.
        write: writes it to the path that it is given.
        suffices: whether a whole file holds all that is needed; if not, `write` makes a more complete one, perhaps from
            the present one beside the path that it is given.
    """
    target = cache_root() / kind / name

    def usable() -> bool:
        return _whole(target) and (suffices is None or suffices(target))

    if not usable():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not usable():  # another run may have written it while this one waited for the lock
                if target.exists() and not _whole(target):
                    log.warning("the cached file %s is damaged; it is made anew", target)
                    target.unlink()
                with replacing(target) as aside:
                    write(aside)
                    _checksum_file(target).write_text(_checksum(aside))
    return target


def _checksum_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.crc32")


def _checksum(file: Path) -> str:
    """Size and CRC-32, which find damage; against an attacker they are no help."""
    total = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            total = zlib.crc32(block, total)
    return f"{file.stat().st_size} {total:08x}"


def _whole(target: Path) -> bool:
    """Whether a cached file is there, as it was written."""
    try:
        return _checksum(target) == _checksum_file(target).read_text()
    except (OSError, UnicodeDecodeError):
        return False
