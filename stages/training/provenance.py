"""The code that a model was trained with: which files, and which commit."""

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


def content_hash(files: list[Path]) -> str:
    """SHA-256 of the files' contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def revision(files: list[Path]) -> str:
    """The commit that last changed one of the files, with a + if they have uncommitted changes; else "unknown".

    Unlike HEAD, it does not change with commits to other files. So a training with unchanged code gives the same bytes.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")
        return (commit + ("+" if git("status", "--porcelain") else "")) or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no git, or not a clone
