"""Segments: files to which new pictures are appended, each with a header, so that they are found without an index.

A record is the segment's random name, a space, a line of JSON, and the bytes. A host cannot forge a record inside of a
picture, because it does not know the name.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUFFIX = ".segment"


class Record(NamedTuple):
    """A picture in a segment."""

    header: dict[str, Any]
    start: int
    """Offset of its first byte."""


class SegmentWriter:
    """Appends to segments of its own, up to `size` bytes each; every process has one."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._file = -1  # descriptor
        self._name = ""
        self._end = size

    def append(self, header: dict[str, Any], data: bytes) -> tuple[str, int]:
        """Write a record; returns the segment's name and the offset of the first byte."""
        text = f" {json.dumps(header)}\n".encode()
        is_deleted = self._file >= 0 and not os.fstat(self._file).st_nlink  # swept after a long pause
        if is_deleted or self._end + len(self._name) + len(text) + len(data) > self._size:
            self.close()
            self._name, self._end = uuid.uuid4().hex, 0
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        head = self._name.encode() + text
        start = self._end + len(head)
        view = memoryview(head + data)
        while view:  # os.write may write less than it is given
            written = os.write(self._file, view)
            self._end += written
            view = view[written:]
        return self._path.name, start

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}{SUFFIX}"

    def close(self) -> None:
        """Close the file. Everything is written already."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def records(segment: Path) -> Iterator[Record]:
    """The records of a segment; behind a damaged one the search goes on. The bytes are not checked."""
    mark = segment.stem.encode() + b" "
    with segment.open("rb") as file, contextlib.ExitStack() as stack:
        if not os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
            return
        content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        position = content.find(mark)
        while position >= 0:
            start = content.find(b"\n", position) + 1
            header = _header(content[position + len(mark) : start])
            end = start
            if header is not None:
                end = start + header["length"]
                yield Record(header, start)
            is_next = content[end : end + len(mark)] == mark
            position = end if is_next else content.find(mark, position + len(mark))


def _header(line: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(line)
    except ValueError:
        return None
    is_valid = isinstance(header, dict) and isinstance(header.get("length"), int) and header["length"] >= 0
    return header if is_valid else None
