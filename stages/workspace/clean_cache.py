"""The cache root -> less of it: `python -m stages.workspace.clean_cache [--all]` deletes what can be computed again."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from stages.workspace.cache import cache_root
from stages.workspace.errors import run
from stages.workspace.files import is_locked

FETCHED = {
    "pictures": "downloaded pictures and their index; without them, download fetches again what no shard has",
    "sample": "packages of the sample board and their pictures; 223 MB to fetch again",
}
"""Folders of what took time to fetch, and what deleting them costs."""
LOCKS = (".lock", ".users", ".builder")
"""Ends of the names of lock files; a file or folder of the same name is in use while a process holds the lock."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="delete what was downloaded as well")
    options = parser.parse_args()
    root = cache_root()
    freed = 0
    for path in sorted(root.iterdir()):
        if path.name in FETCHED and not options.all:
            say(f"kept   {gigabytes(size(path))}  {path.name}: {FETCHED[path.name]} (--all deletes it)")
            continue
        deleted, kept = clean(path)
        freed += deleted
        note = f", {gigabytes(kept).strip()} of it in use and kept" if kept else ""
        cost = f": {FETCHED[path.name]}" if path.name in FETCHED else ""
        if deleted or kept:
            say(f"freed  {gigabytes(deleted)}  {path.name}{cost}{note}")
    say(f"freed  {gigabytes(freed)}  of {root}")


def clean(path: Path) -> tuple[int, int]:
    """Delete a file, or what no running process uses of a folder.

    Returns:
        Bytes on the disk that were freed, and those in use.
    """
    entries = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else [path]
    busy = {entry.name.removesuffix(entry.suffix) for entry in entries if entry.suffix in LOCKS and is_locked(entry)}
    freed = kept = 0
    for entry in entries:
        if entry.name in busy or entry.name.removesuffix(entry.suffix) in busy:
            kept += size(entry)
        else:
            freed += size(entry)
            delete(entry)
    return freed, kept


def delete(path: Path) -> None:
    """Delete a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes on the disk that deleting a path frees: none for a link, or for a file that is linked elsewhere, too."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    facts = [path.lstat() for path in paths if path.is_file() and not path.is_symlink()]
    return sum(fact.st_blocks * 512 for fact in facts if fact.st_nlink == 1)


def gigabytes(count: int) -> str:
    return f"{count / 1e9:8.3f} GB"


def say(text: str) -> None:
    print(text)  # noqa: T201 (the command's answer)


if __name__ == "__main__":
    run(main)
