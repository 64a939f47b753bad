"""Which code and which data a model comes from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path


def sources() -> list[Path]:
    """The files of this project that the running program has imported."""
    names = [name for name in sys.modules if name == "__main__" or name.split(".")[0] == "stages"]
    files = (getattr(sys.modules[name], "__file__", None) for name in names)
    return sorted({Path(file) for file in files if file and Path(file).is_relative_to(Path.cwd())})


def digest(files: list[Path]) -> str:
    """SHA-256 over the files' bytes."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


def revision(files: list[Path]) -> str:
    """The commit that last changed one of the files, with a + if they have changed since; "unknown" without git.

    Unlike the commit that is checked out, it stays the same while they do, and so do the bytes that it is written to.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")
        return (commit + ("+" if git("status", "--porcelain") else "")) or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
