"""The catalogue and a model's scores -> the pictures to look at, those whose label is likely wrong first."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.catalogue.corrections import NONE
from stages.workspace import paths
from stages.workspace.errors import ModelError

PREFIX = "score_"
"""Of the columns with scores."""
MAX_TAGS = 60
"""Tags of a picture that are shown."""


@dataclass(frozen=True)
class Item:
    """A picture with a label and a model's scores."""

    image_id: int
    sha512: str
    """"" if the board has none."""
    label: str
    """As in the file of corrections: several are joined by `+`."""
    alternatives: tuple[str, ...]
    """Other labels that it may have, the likeliest first."""
    scores: dict[str, float]
    """Label -> score of the model."""
    doubt: float
    """How much the scores contradict the label, 0 to 1."""
    is_likely: bool
    """Whether `test` lists the label as likely wrong."""
    tags: tuple[str, ...]
    artist: str
    url: str
    """Of the picture, on its board."""


@dataclass(frozen=True)
class Queue:
    """The pictures that have scores."""

    policy: str
    rules: dict[str, str]
    """Label -> by what tags it is given, in words."""
    items: dict[int, Item]
    """Image id -> picture: first those that are likely wrong, then the others; in both, the most doubtful first."""


def read(images: Path = paths.IMAGES, issues: Path = paths.LABEL_ISSUES, scores: list[Path] | None = None) -> Queue:
    """Read the catalogue, the scores and the label issues.

    Args:
        images: the catalogue, whose labels are judged.
        issues: the table of label issues, if there is one.
        scores: tables with image_id and `PREFIX`LABEL for each label; by default those of the test split, and whatever
            the train stage has written of pictures that the scoring head did not learn from.

    Raises:
        ModelError: if there is no catalogue, or no scores of its policy's labels.
    """
    try:
        metadata = pq.read_schema(images).metadata or {}
        policy = json.loads(metadata[b"mlpy"])["policy"]
    except (FileNotFoundError, KeyError, pa.ArrowInvalid):
        raise ModelError(f"{images} is missing or damaged; run `dvc repro`") from None
    files = [paths.PREDICTIONS, *sorted(paths.CHECKPOINT.parent.glob("*.parquet"))] if scores is None else scores
    scored: dict[int, dict[str, float]] = {}
    for file in files:
        scored |= {image_id: own for image_id, own in _scores(file, policy["labels"]) if image_id not in scored}
    if not scored:
        raise ModelError(f"there are no scores of the policy {policy['name']}'s labels; run `dvc repro`")
    likely = _issues(issues)
    column = "labels" if policy["kind"] == "multilabel" else "label"
    columns = ["image_id", "sha512", column, "tags", "artist", "url"]
    rows = pq.read_table(images, columns=columns, filters=[("image_id", "in", list(scored))]).to_pylist()
    items = [
        _item(row, list(row[column] or []) if column == "labels" else [row[column]], policy, scored, likely)
        for row in rows
    ]
    items.sort(key=lambda item: (not item.is_likely, -item.doubt, item.image_id))
    return Queue(policy["name"], _rules(policy), {item.image_id: item for item in items})


def _rules(policy: dict[str, Any]) -> dict[str, str]:
    words = {"any": "any of", "all": "all of", "none": "none of"}
    return {
        label: "everything else"
        if rule["rest"]
        else "; ".join(f"{text} {', '.join(rule[word])}" for word, text in words.items() if rule[word])
        for label, rule in policy.get("rules", {}).items()
    }


def _item(
    row: dict[str, Any],
    labels: list[str],
    policy: dict[str, Any],
    scored: dict[int, dict[str, float]],
    likely: set[int],
) -> Item:
    image_id, scores = row["image_id"], scored[row["image_id"]]
    if policy["kind"] == "multilabel":
        doubts = {name: 1 - score if name in labels else score for name, score in scores.items()}
        by_doubt = sorted(doubts, key=lambda name: -doubts[name])
        alternatives = [_joined(set(labels) ^ {name}, policy["labels"]) for name in by_doubt]
        label, doubt = _joined(set(labels), policy["labels"]), max(doubts.values())
    else:
        (label,) = labels
        alternatives = sorted(set(policy["labels"]) - {label}, key=lambda name: -scores[name])
        doubt = 1 - scores[label]
    return Item(
        image_id,
        (row["sha512"] or "").lower(),
        label,
        tuple(alternatives),
        scores,
        doubt,
        image_id in likely,
        tuple(row["tags"][:MAX_TAGS]),
        row["artist"] or "",
        row["url"],
    )


def _joined(names: set[str], labels: list[str]) -> str:
    return "+".join(label for label in labels if label in names) or NONE


def _scores(file: Path, labels: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    """Each picture's scores; nothing if the file is missing, or has not these labels."""
    columns = ["image_id", *(f"{PREFIX}{label}" for label in labels)]
    try:
        if not set(columns) <= set(pq.read_schema(file).names):
            return
        table = pq.read_table(file, columns=columns)
    except (FileNotFoundError, pa.ArrowInvalid):
        return
    for image_id, *scores in zip(*(table[column].to_pylist() for column in columns), strict=True):
        yield image_id, dict(zip(labels, scores, strict=True))


def _issues(file: Path) -> set[int]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return {int(row["image_id"]) for row in csv.DictReader(opened)}
    except FileNotFoundError:
        return set()
