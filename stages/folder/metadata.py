"""`metadata.csv` or `metadata.jsonl` -> what each row says of a file: labels, tags, artist, origin, licence, source.

The convention of Hugging Face's `imagefolder`: a column `file_name`, relative to the metadata's folder. Whoever wrote
the file may have put anything there, so the length of lines and the number of names are limited.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stages.folder.names import key_of, name_of, printable
from stages.philomena.tags import ARTIST, LICENCE, ORIGIN
from stages.workspace.errors import FolderError

FILES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
LABEL, LABELS, TAGS, SOURCE = "label", "labels", "tags", "source"
PREFIXED = {"artist": ARTIST, "origin": ORIGIN, "licence": LICENCE, "license": LICENCE}
"""Columns with one tag of a kind that says where a picture is from."""
LABELLING = frozenset({LABEL, LABELS, TAGS})
"""Columns that say what pictures show; with one of them, folders' names do not."""
KNOWN = frozenset({FILE_NAME, SOURCE, *LABELLING, *PREFIXED})
SEPARATORS = re.compile("[,;|]")
"""Between the labels or tags of a field."""
MOST_LINE = 1_000_000
"""Characters of a line."""
MOST_NAME = 250
"""Characters of a label or tag; PostgreSQL cannot index a name of thousands."""
MOST_NAMES = 1000
"""Labels and tags of a picture."""
ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order mark -> encoding. Spreadsheets write them."""


@dataclass(frozen=True)
class Row:
    """What metadata say of a file."""

    path: str
    """Below the folder of pictures, as `key_of` gives it. It may lead out of it."""
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    source: str = ""
    """A web address."""
    unlabelled: bool = False
    """There is a column `label`, and it is empty."""
    labelling: bool = False
    """The row has a column that says what the picture shows."""


def file_in(folder: Path) -> Path | None:
    """The folder's metadata file.

    Raises:
        FolderError: if there are two, or it is a link, which may lead out of the folder.
    """
    present = [folder / name for name in FILES if (folder / name).is_file()]
    if len(present) > 1:
        raise FolderError(f"{folder} has both {' and '.join(FILES)}; keep one of them")
    if present and present[0].is_symlink():
        raise FolderError(f"{present[0]} is a symbolic link; put the file itself there")
    return present[0] if present else None


def read(file: Path, below: str = "") -> Iterator[Row]:
    """The rows of a metadata file.

    Args:
        file: `metadata.csv` or `metadata.jsonl`.
        below: the file's folder, relative to that of the pictures.

    Raises:
        FolderError: if the file, or a row of it, cannot be read; it names the line.
    """
    try:
        with file.open("rb") as raw, _text(raw) as text:
            for number, fields in (_csv_rows if file.suffix == ".csv" else _json_rows)(file, text):
                yield _row(file, number, fields, below)
    except UnicodeError as error:
        raise FolderError(
            f"{file} is not UTF-8 ({error.__class__.__name__}); save it with the encoding UTF-8"
        ) from None
    except OSError as error:
        raise FolderError(f"{file} cannot be read ({error.strerror}); change its owner or mode") from None


def _text(raw: IO[bytes]) -> io.TextIOWrapper:
    start = raw.read(4)
    raw.seek(0)
    encoding = next((encoding for mark, encoding in ENCODINGS.items() if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(raw, encoding, newline="")


def _lines(file: Path, text: IO[str]) -> Iterator[str]:
    number = 0
    while line := text.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise FolderError(f"{file}, line {number}: longer than {MOST_LINE:,} characters; one line is one picture")
        yield line


def _csv_rows(file: Path, text: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = _lines(file, text)
    header = next(lines, "")
    for delimiter in ",;\t":  # spreadsheets write the second where a comma is in numbers
        columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if FILE_NAME in columns:
            break
    else:
        raise FolderError(f"{file} has no column {FILE_NAME} in its first line; name the column of the files so")
    if twice := next((name for name in columns if name in KNOWN and columns.count(name) > 1), ""):
        raise FolderError(f"{file} has the column {twice} twice; keep one of them")
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        for fields in reader:
            number = reader.line_num + 1
            if len(fields) > len(columns):
                raise FolderError(
                    f"{file}, line {number}: {len(fields)} fields for {len(columns)} columns; put a field with a "
                    f"{'tab' if delimiter == chr(9) else delimiter} in it in double quotes"
                )
            if any(fields):
                yield number, dict(zip(columns, fields + [""] * (len(columns) - len(fields)), strict=True))
    except csv.Error as error:
        raise FolderError(f"{file}, line {reader.line_num + 1}: no readable CSV ({error}); correct it") from None


def _json_rows(file: Path, text: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(file, text), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise FolderError(f"{file}, line {number}: no readable JSON; write one object a line") from None
        if not isinstance(fields, dict):
            raise FolderError(f'{file}, line {number}: no object; write {{"{FILE_NAME}": ..., "{LABEL}": ...}}')
        yield number, fields


def _row(file: Path, number: int, fields: Mapping[str, Any], below: str) -> Row:
    def word(column: str) -> str:
        value = fields.get(column)
        if isinstance(value, dict | list):
            raise FolderError(f"{file}, line {number}: {column} is not one value; use {LABELS} or {TAGS} for several")
        return "" if value is None else str(value).strip()

    def words(column: str) -> list[str]:
        value = fields.get(column)
        if isinstance(value, list):
            if any(isinstance(part, dict | list) for part in value):
                raise FolderError(f"{file}, line {number}: {column} is not a list of texts; write it as one")
            return [str(part) for part in value if part is not None]
        return SEPARATORS.split(word(column))

    name = word(FILE_NAME)
    if not name:
        raise FolderError(f"{file}, line {number}: {FILE_NAME} is empty; name a file, or remove the line")
    labels = _names(file, number, [word(LABEL), *words(LABELS)])
    origins = [f"{prefix}{text}" for column, prefix in PREFIXED.items() if (text := word(column))]
    return Row(
        path=posixpath.normpath(posixpath.join(below, key_of(name))),
        labels=labels,
        tags=_names(file, number, [*words(TAGS), *origins]),
        source=printable(word(SOURCE)),
        unlabelled=LABEL in fields and not labels,
        labelling=not LABELLING.isdisjoint(fields),
    )


def _names(file: Path, number: int, texts: list[str]) -> tuple[str, ...]:
    names = tuple(sorted({name for text in texts if (name := name_of(text))}))
    if len(names) > MOST_NAMES:
        raise FolderError(f"{file}, line {number}: more than {MOST_NAMES:,} labels or tags; a picture may have fewer")
    if long := next((name for name in names if len(name) > MOST_NAME), ""):
        raise FolderError(
            f"{file}, line {number}: {long[:40]}... is longer than {MOST_NAME} characters; labels and tags are names"
        )
    return names
