"""Answers -> the file of corrections, one at a time: each is in the file when `put` returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from stages.catalogue.corrections import LEAST_DIGITS, Correction, locked, read, write
from stages.labelling.queue import Item
from stages.workspace.errors import MLpyError


class ConflictError(MLpyError):
    """The picture has another answer by now than the page showed: someone gave it in another tab or process."""

    def __init__(self, item: Item, label: str | None) -> None:
        super().__init__(
            f"image {item.image_id} was answered elsewhere: {label}"
            if label
            else f"the answer for image {item.image_id} was taken back elsewhere"
        )
        self.label = label


def put(path: Path, policy: str, item: Item, label: str | None, before: str | None, who: str, why: str) -> None:
    """Give a picture's answer, or take it back (`label` None).

    Args:
        path: the file of corrections.
        policy: whose labels they are.
        item: the picture.
        label: of the picture, or `corrections.UNDECIDED`.
        before: the answer that whoever answers knows of, None for none.
        who: answers.
        why: in words.

    Raises:
        ConflictError: if the picture has another answer than `before`; nothing is changed.
        CorrectionsError: if the file cannot be read.
    """
    with locked(path):
        rows = read(path)
        own = [row for row in rows if row.policy == policy and row.is_of(item.image_id, item.sha512)]
        present = own[0].label if own else None
        if present != before:
            raise ConflictError(item, present)
        rows = [row for row in rows if row not in own]
        if label is not None:
            # As it is named already: by its hash alone, a row may be about copies of it as well.
            named = (own[0].image_id, own[0].sha512) if own else (item.image_id, item.sha512[:LEAST_DIGITS])
            rows.append(Correction(*named, policy, label, who=who, why=why))
        write(path, rows)


def given(path: Path, policy: str, items: Iterable[Item]) -> dict[int, str]:
    """Image id -> the answer, for those items that have one.

    Raises:
        CorrectionsError: if the file cannot be read.
    """
    by_id: dict[int, str] = {}
    by_hash: defaultdict[str, list[Correction]] = defaultdict(list)
    for row in read(path):
        if row.policy == policy and row.image_id is not None:
            by_id[row.image_id] = row.label
        elif row.policy == policy:
            by_hash[row.sha512[:LEAST_DIGITS]].append(row)
    answers = {}
    for item in items:
        same = [row for row in by_hash[item.sha512[:LEAST_DIGITS]] if row.is_of(item.image_id, item.sha512)]
        label = by_id.get(item.image_id, same[0].label if same else None)
        if label is not None:
            answers[item.image_id] = label
    return answers
