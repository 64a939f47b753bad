"""Disks and folders that cannot be used: one sentence for a user, whichever library met the trouble."""

from __future__ import annotations

import errno
import os
import sqlite3

FULL = "free some space, or set MLPY_CACHE to a folder on a larger disk"
DENIED = "change its permissions, or set MLPY_CACHE to a folder that you may write to"
ADVICE = {
    errno.ENOSPC: f"the disk is full: {FULL}",
    errno.EDQUOT: f"your disk quota is used up: {FULL}",
    errno.EFBIG: f"the file is larger than this process may write: raise `ulimit -f`, or {FULL}",
    errno.EROFS: "the file system is read-only: mount it for writing, or set MLPY_CACHE to another one",
    errno.EACCES: f"permission denied: {DENIED}",
    errno.EPERM: f"operation not permitted: {DENIED}",
    errno.ENOTDIR: "a part of the path is a file, not a folder: remove it, or set MLPY_CACHE to a folder",
    errno.EEXIST: "a file is where a folder should be: remove it, or set MLPY_CACHE to a folder",
    errno.EIO: "the disk reports an input/output error: check the disk, or set MLPY_CACHE to a folder on another one",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
}
"""Errors of the operating system that a user can fix, and what to do. All others are bugs."""
SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
"""Result codes of SQLite that stand for the same."""


def storage_trouble(error: BaseException) -> str:
    """The sentence for a disk or folder that cannot be used, with the path if it is known; "" for any other error.

    Libraries wrap such errors in exceptions of their own, so the causes are searched, too.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in ADVICE:
            path = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, str | bytes) else ""
            return path + ADVICE[cause.errno]
        if isinstance(cause, sqlite3.Error):
            # The low byte is the kind; the rest, such as which input/output failed, makes no difference to a user.
            number = SQLITE.get((getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF)
            return f"the index of the picture store: {ADVICE[number]}" if number else ""
        cause = cause.__cause__ or cause.__context__
    return ""
