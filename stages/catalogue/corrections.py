"""The file of corrections: what people who looked at pictures say of their labels and tags, kept in git.

A row is about one image, named by its id on the board, by its SHA-512 (all of it, or at least the first `LEAST_DIGITS`
hexadecimal digits), or by both, of which the hash then checks the id. It says one of two things:

- `policy` and `label`: the image's label in that policy, or its labels joined by `+`, `none` for none of a multilabel
  policy, or `?` if whoever looked could not tell;
- `add_tags` and `remove_tags`, each a list with commas: they hold for every policy.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stages.workspace.errors import CorrectionsError
from stages.workspace.files import replacing

COLUMNS = ("image_id", "sha512", "policy", "label", "add_tags", "remove_tags", "who", "why")
UNDECIDED = "?"
"""Label of a picture that was looked at, and that may be seen as either."""
NONE = "none"
"""Label of a picture that has none, in a multilabel policy."""
LEAST_DIGITS, MOST_DIGITS = 16, 128
"""Hexadecimal digits of a SHA-512; 16 tell billions of pictures apart."""
MAX_BYTES = 64 << 20
"""Of the file: some million rows."""
MAX_ID = 2**63 - 1
DIGITS = re.compile(r"[1-9][0-9]*")
HEX = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},{MOST_DIGITS}}}")
CONFLICT = ("<<<<<<<", "=======", ">>>>>>>")
"""How lines begin between which git could not choose."""


@dataclass(frozen=True)
class Correction:
    """A row of the file: about a label (`policy`, `label`) or about tags (`add`, `remove`), never both."""

    image_id: int | None = None
    sha512: str = ""
    """In lower case, in full or its beginning; "" if only the id is given."""
    policy: str = ""
    label: str = ""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    who: str = ""
    why: str = ""
    line: int = field(default=0, compare=False)
    """Where it begins in the file, from 1."""

    def is_of(self, image_id: int, sha512: str) -> bool:
        """Whether it names that image; `sha512` is "" if the board has none."""
        if self.image_id is not None:
            return self.image_id == image_id
        return sha512.startswith(self.sha512)

    def cells(self) -> list[str]:
        """Its row in the file, in the order of `COLUMNS`."""
        image_id = "" if self.image_id is None else str(self.image_id)
        tags = (_joined(self.add), _joined(self.remove))
        return [image_id, self.sha512, self.policy, self.label, *tags, self.who, self.why]


def read(path: Path) -> list[Correction]:
    """Read the file's rows, in their order.

    Raises:
        CorrectionsError: if the file is missing, or a row says nothing that can be understood; it names the line.
    """
    rows = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    corrections: list[Correction] = []
    try:
        header = next(rows, [])
        _check_header(path, header)
        begins = rows.line_num + 1
        for cells in rows:
            if cells:
                corrections.append(_parsed(path, begins, header, cells))
            begins = rows.line_num + 1
    except csv.Error as error:
        raise CorrectionsError(path, rows.line_num, f"it is not CSV ({error})", "mend its quotes") from error
    return corrections


def write(path: Path, corrections: Iterable[Correction]) -> None:
    """Replace the file at once. Sorted by image, so that git mostly merges what two people add without a conflict."""
    ordered = sorted(corrections, key=lambda row: (row.image_id is None, row.image_id or 0, row.cells()))
    with replacing(path.resolve()) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{_joined(cells)}\n" for cells in (COLUMNS, *(row.cells() for row in ordered)))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that lock it from changing the file between a `read` and a `write`."""
    # The file itself is replaced, and a file beside it would stay: its folder can be locked as well.
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise CorrectionsError(path, 0, f"it has {size} bytes, more than {MAX_BYTES}", "take rows out")
        return path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark before the text
    except FileNotFoundError:
        raise CorrectionsError(
            path,
            0,
            "there is no such file",
            f"write one with the line `{','.join(COLUMNS)}`, or set extract.corrections",
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorrectionsError(path, line, "it is not UTF-8", "save it as CSV in UTF-8") from error


def _check_header(path: Path, header: list[str]) -> None:
    remedy = f"the columns are `{','.join(COLUMNS)}`, with commas between them"
    if unknown := [name for name in header if name not in COLUMNS]:
        raise CorrectionsError(path, 1, f"{unknown[0]!r} is not a column", remedy)
    if len(set(header)) < len(header):
        raise CorrectionsError(path, 1, "a column is there twice", remedy)
    if not {"image_id", "sha512"} & set(header):
        raise CorrectionsError(path, 1, "it has neither the column image_id nor sha512", remedy)


def _parsed(path: Path, line: int, header: list[str], cells: list[str]) -> Correction:
    """A row of the file."""

    def wrong(problem: str, remedy: str) -> CorrectionsError:
        return CorrectionsError(path, line, problem, remedy)

    if cells[0].startswith(CONFLICT):
        raise wrong("git could not merge it", "choose between the lines that git marked, and delete its marks")
    if len(cells) != len(header):
        raise wrong(f"it has {len(cells)} cells, the first line {len(header)}", "put a cell with a comma in quotes")
    row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    image_id, sha512 = row.get("image_id", ""), row.get("sha512", "").lower()
    if image_id and not (DIGITS.fullmatch(image_id) and int(image_id) <= MAX_ID):
        raise wrong(f"the image_id {image_id!r} is no number of an image", "write it in digits")
    if sha512 and not HEX.fullmatch(sha512):
        raise wrong(
            f"the sha512 {sha512[:24]!r} has not {LEAST_DIGITS} to {MOST_DIGITS} hexadecimal digits",
            "copy it from data/extract/images.parquet, or leave it out and give the image_id",
        )
    if not image_id and not sha512:
        raise wrong("it names no image", "give its image_id or sha512")
    policy, label = row.get("policy", ""), row.get("label", "")
    if bool(policy) != bool(label):
        raise wrong(f"it has a {'policy' if policy else 'label'} alone", "give both policy and label, or tags")
    add, remove = (_tags(row.get(name, ""), name, wrong) for name in ("add_tags", "remove_tags"))
    if bool(label) == bool(add or remove):
        problem = "it has a label and tags" if label else "it has neither a label nor tags"
        raise wrong(problem, "give policy and label in one row, add_tags and remove_tags in another")
    if both := sorted(set(add) & set(remove)):
        raise wrong(f"it adds and removes the tag {both[0]!r}", "leave one of them out")
    id_or_none = int(image_id) if image_id else None
    return Correction(id_or_none, sha512, policy, label, add, remove, row.get("who", ""), row.get("why", ""), line)


def _tags(cell: str, column: str, wrong: Callable[[str, str], CorrectionsError]) -> tuple[str, ...]:
    """The tags of a cell: a list with commas, in which a tag with a comma is in quotes."""
    try:
        lists = list(csv.reader([cell], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise wrong(f"{column} is no list of tags ({error})", "put commas between them") from error
    tags = (tag.strip() for names in lists for tag in names)
    return tuple(dict.fromkeys(tag for tag in tags if tag))


def _joined(values: Sequence[str]) -> str:
    """A line of CSV, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # values with either character are put in quotes
    return line.getvalue().removesuffix("\r\n")
