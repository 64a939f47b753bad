"""Corrections and the board's database -> what the statement has to change, and what became of each row."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.catalogue.corrections import LEAST_DIGITS, NONE, UNDECIDED, Correction
from stages.catalogue.tags import Tags
from stages.config.extract import Policy
from stages.workspace.errors import CorrectionsError

KINDS = ("labels_changed", "labels_confirmed", "undecided", "tags_changed", "without_effect", "excluded")
"""What a row of the policy does: gives another label than the tags, or the same; nothing, as whoever looked could not
tell; changes tags; says what the board says by now; or is about images that are left out anyway."""

CANDIDATES = f"""
SELECT id, lower(image_sha512_hash) FROM images
WHERE id = ANY(%(ids)s) OR left(lower(image_sha512_hash), {LEAST_DIGITS}) = ANY(%(beginnings)s)
ORDER BY id
"""  # noqa: S608 (a number of ours)


@dataclass
class Edit:
    """The tags to change of an image, by their numbers in `Tags`, and the lines that say so."""

    added: dict[int, int] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)


@dataclass
class Corrected:
    """The corrections of one policy, by image."""

    labels: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Image id -> its labels, as positions in the policy's list, ascending."""
    edits: dict[int, Edit] = field(default_factory=dict)
    rows: list[tuple[Correction, tuple[int, ...]]] = field(default_factory=list)
    """Rows of this policy, with the ids of the images that each is about."""
    other_policies: Counter[str] = field(default_factory=Counter)
    """Policy -> rows about its labels, which this one does not have."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Name of a tag that rows add or remove -> its number, without sign."""
    changed: set[int] = field(default_factory=set)
    """`note` fills this and what follows: kept images whose label is another than their tags give."""
    seen: set[int] = field(default_factory=set)
    """Kept images that rows are about."""
    tags: dict[int, set[int]] = field(default_factory=dict)
    """Kept image -> the numbers of its tags on the board, without sign."""

    @functools.cached_property
    def _ids(self) -> pa.Array:
        return pa.array(sorted({image_id for _, ids in self.rows for image_id in ids}), pa.int64())

    def note(self, kept: pa.RecordBatch) -> None:
        """Note what became of the images that rows are about, from those of the statement's rows that are kept."""
        about = kept.filter(pc.is_in(kept["image_id"], value_set=self._ids))
        for row in about.select(["image_id", "is_changed", "before"]).to_pylist():
            self.seen.add(row["image_id"])
            if row["is_changed"]:
                self.changed.add(row["image_id"])
            numbers = (row["before"] or "").strip("{}")
            self.tags[row["image_id"]] = {abs(int(number)) for number in numbers.split(",") if number}

    def values(self) -> dict[str, Any]:
        """Values of the statement's placeholders."""
        return {
            "relabelled": list(self.labels),
            "given": [_array(labels) for labels in self.labels.values()],
            "edited": list(self.edits),
            "added": [_array(edit.added) for edit in self.edits.values()],
            "removed": [_array(edit.removed) for edit in self.edits.values()],
        }

    def summary(self) -> dict[str, Any]:
        """How many rows did what, once the catalogue is read."""
        counts = Counter(self._kind(row, ids) for row, ids in self.rows)
        return {
            "rows": len(self.rows) + self.other_policies.total(),
            **{kind: counts[kind] for kind in KINDS},
            "other_policies": dict(sorted(self.other_policies.items())),
        }

    def _kind(self, row: Correction, ids: Sequence[int]) -> str:
        kept = self.seen.intersection(ids)
        if not kept:
            return "excluded"
        if row.label == UNDECIDED:
            return "undecided"
        if row.label:
            return "labels_changed" if kept & self.changed else "labels_confirmed"
        added, removed = ({self.numbers[tag] for tag in tags} for tags in (row.add, row.remove))
        changes = any(added - self.tags[image_id] or removed & self.tags[image_id] for image_id in kept)
        return "tags_changed" if changes else "without_effect"


def resolve(path: Path, rows: Iterable[Correction], cursor: Cursor, policy: Policy, known: Tags) -> Corrected:
    """Look up images, labels and tags.

    Raises:
        CorrectionsError: if the board does not have an image or a tag, a hash is not the image's, the policy does not
            have a label, or two rows contradict each other. The message names the line.
    """
    rows = list(rows)
    corrected = Corrected()
    images = _images(path, rows, cursor)
    numbers = known.look_up(tag for row in rows for tag in (*row.add, *row.remove))
    corrected.numbers = {tag: abs(number) for tag, number in numbers.items() if number is not None}
    lines: dict[tuple[int, str], Correction] = {}
    for row, ids in zip(rows, images, strict=True):
        if row.policy:
            for image_id in ids:
                first = lines.setdefault((image_id, row.policy), row)
                if first.label != row.label:
                    raise _contradiction(path, first, row, image_id, f"{first.label!r} and {row.label!r}")
            if row.policy != policy.name:
                corrected.other_policies[row.policy] += 1
                continue
            if row.label != UNDECIDED:
                labels = _labels(path, row, policy)
                corrected.labels |= dict.fromkeys(ids, labels)
        corrected.rows.append((row, ids))
        for tag in (*row.add, *row.remove):
            if numbers[tag] is None:
                problem, advice = known.explain(tag)
                raise CorrectionsError(path, row.line, f"it names {problem}", advice)
        for image_id in ids if row.add or row.remove else ():
            edit = corrected.edits.setdefault(image_id, Edit())
            _merge(path, row, image_id, edit, numbers)
    return corrected


def _merge(path: Path, row: Correction, image_id: int, edit: Edit, numbers: dict[str, int | None]) -> None:
    """Add a row's tags to those of earlier rows about the image."""
    for tags, own, other in ((row.add, edit.added, edit.removed), (row.remove, edit.removed, edit.added)):
        for tag in tags:
            number = numbers[tag] or 0
            if number in other:
                problem = f"this line and line {other[number]} add and remove the tag {tag!r} of image {image_id}"
                raise CorrectionsError(path, row.line, problem, "delete one of the two")
            own.setdefault(number, row.line)


def _contradiction(path: Path, first: Correction, row: Correction, image_id: int, labels: str) -> CorrectionsError:
    problem = f"image {image_id} has two labels in the policy {row.policy}, {labels}: see line {first.line}"
    return CorrectionsError(path, row.line, problem, "delete one of the two")


def _images(path: Path, rows: list[Correction], cursor: Cursor) -> list[tuple[int, ...]]:
    """The ids of the images that each row is about: several where a hash alone names them."""
    if not rows:
        return []
    ids = [row.image_id for row in rows if row.image_id is not None]
    beginnings = [row.sha512[:LEAST_DIGITS] for row in rows if row.sha512]
    cursor.execute(CANDIDATES, {"ids": ids, "beginnings": beginnings})
    hashes: dict[int, str] = {image_id: sha512 or "" for image_id, sha512 in cursor.fetchall()}
    with_hash: defaultdict[str, list[int]] = defaultdict(list)
    for image_id, sha512 in hashes.items():
        with_hash[sha512[:LEAST_DIGITS]].append(image_id)

    def named(row: Correction) -> tuple[int, ...]:
        same = [one for one in with_hash[row.sha512[:LEAST_DIGITS]] if hashes[one].startswith(row.sha512)]
        if row.image_id is None:
            if not same:
                problem = f"no image of the board has a SHA-512 that begins with {row.sha512[:LEAST_DIGITS]}"
                raise CorrectionsError(path, row.line, problem, "correct it, or delete the line")
            if others := [one for one in same if hashes[one] != hashes[same[0]]]:
                problem = f"images {same[0]} and {others[0]} both have a SHA-512 that begins so"
                raise CorrectionsError(path, row.line, problem, "give more of its digits")
            return tuple(same)
        if row.image_id not in hashes:
            remedy = f"image {same[0]} has this SHA-512: write that id" if row.sha512 and same else "delete the line"
            raise CorrectionsError(path, row.line, f"the board has no image {row.image_id}", remedy)
        # An old row of a board may lack the hash; then there is nothing to compare.
        if row.sha512 and (has := hashes[row.image_id]) and not has.startswith(row.sha512):
            remedy = f"image {same[0]} has it: write that id" if same else "correct it, or look at the picture again"
            problem = f"the SHA-512 of image {row.image_id} begins with {has[:LEAST_DIGITS]}, which is another"
            raise CorrectionsError(path, row.line, problem, remedy)
        return (row.image_id,)

    return [named(row) for row in rows]


def _labels(path: Path, row: Correction, policy: Policy) -> tuple[int, ...]:
    """A row's labels, as positions in the policy's list."""
    multilabel = policy.kind == "multilabel"
    names = [] if multilabel and row.label == NONE else row.label.split("+") if multilabel else [row.label]
    places = {label: place for place, label in enumerate(policy.labels)}
    if unknown := [name for name in names if name not in places]:
        some = ", ".join([*policy.labels, *([NONE] if multilabel else []), UNDECIDED])
        problem = f"the policy {policy.name} has no label {unknown[0]!r}"
        raise CorrectionsError(path, row.line, problem, f"write one of {some}")
    return tuple(sorted({places[name] for name in names}))


def _array(numbers: Iterable[int]) -> str:
    """A PostgreSQL array, as text: its arrays of arrays must be rectangular."""
    return f"{{{','.join(map(str, numbers))}}}"
