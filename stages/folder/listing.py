"""What a folder holds: every file once, and why one cannot be a picture of the data set.

Whoever filled the folder may have put anything there, so no link is followed out of it, and only regular files are
opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.workspace.errors import FolderError

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir"})
"""Names, in lower case, that systems add to folders of pictures. Names with a dot in front are hidden as well."""


@dataclass(frozen=True)
class Entry:
    """A file of the folder, or a part of it that is left out."""

    path: str
    """Below the folder, with slashes."""
    reason: str = ""
    """Why it is left out; "" for a file to read."""
    detail: str = ""


def checked(folder: Path) -> Path:
    """The folder's real path.

    Raises:
        FolderError: if there is no such folder, or it cannot be listed.
    """
    if not folder.exists():
        raise FolderError(
            f"there is no folder {folder}; put pictures there, a folder for each label, as {folder}/cats/tabby.png, "
            "or set download.folder.pictures to your own"
        )
    if not folder.is_dir():
        raise FolderError(f"{folder} is a file; set download.folder.pictures to a folder of pictures")
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise FolderError(f"{folder} cannot be read ({error.strerror}); change its owner or mode") from None
    return folder.resolve()


def entries(root: Path) -> Iterator[Entry]:
    """Everything in a folder that `checked` returned, in the order of the file system."""
    ahead = [""]  # not by recursion: folders may be nested deeper than Python's calls
    while ahead:
        folder = ahead.pop()
        try:
            with os.scandir(root / folder) as found:
                for entry in found:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if not _is_text(entry.name):
                        yield Entry(path.encode(errors="surrogateescape").decode(errors="backslashreplace"), "not_utf8")
                    elif is_hidden(entry.name):
                        yield Entry(path, "hidden")
                    elif entry.is_symlink():
                        yield _link(root, path)
                    elif entry.is_dir(follow_symlinks=False):
                        ahead.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        yield Entry(path)
                    else:
                        yield Entry(path, "special", "a pipe, socket or device")
        except OSError as error:
            yield Entry(folder, "unreadable", error.strerror or "")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of those that a user put there."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8: Python puts surrogates in place of other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _link(root: Path, path: str) -> Entry:
    """A symbolic link: to a file of the folder it is another name of that file."""
    target = Path(os.path.realpath(root / path))
    if target.is_file() and target.is_relative_to(root):
        return Entry(path)
    if not target.exists():
        return Entry(path, "link", "leads nowhere")
    return Entry(path, "link", "leads to a folder" if target.is_dir() else "leads out of the folder")


def read(root: Path, path: str, max_bytes: int) -> bytes | None:
    """The bytes of a file of the folder, or None if there are more than `max_bytes`.

    Raises:
        OSError: if it cannot be read, or is no file of the folder any more.
    """
    target = Path(os.path.realpath(root / path))
    if not target.is_relative_to(root):
        raise PermissionError(f"{path} leads out of the folder")
    # A pipe that took the file's place would keep `open` waiting for ever.
    with os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise PermissionError(f"{path} is no file")
        data = file.read(max_bytes + 1) if facts.st_size <= max_bytes else b""
    return data if facts.st_size <= max_bytes and len(data) <= max_bytes else None
