"""Splits -> what a network is to say: the labels of each picture, and its tags as auxiliary targets."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.dataset.crossfitting import held_out
from stages.workspace.errors import ModelError

LEAST = 20
"""Training pictures that a label needs; fewer teach nothing that lasts."""
LABELS = {"label", "labels"}
"""Columns, of which a split has the one or the other."""
MOST_TAGS = 2000
"""Auxiliary targets: the most frequent tags, on a board with more."""


@dataclass(frozen=True)
class Examples:
    """One split."""

    ids: NDArray[np.int64]
    labels: NDArray[np.float32]
    """[n, labels], 0 or 1; exactly one 1 a row unless multilabel."""
    tags: NDArray[np.bool_]
    """[n, tags] of the task's vocabulary."""
    members: NDArray[np.float32]
    """[n, members] 1 for each member of the network that learns from the picture or, in `val`, judges it; else 0."""


@dataclass(frozen=True)
class Task:
    """What is to be learnt, from which pictures."""

    policy: dict[str, Any]
    """As the splits' metadata give it: name, kind, labels."""
    vocabulary: tuple[str, ...]
    train: Examples
    """What is learnt from."""
    val: Examples
    """What scores are measured on, each by members that have not learnt from the picture or one of its group."""

    @property
    def kind(self) -> str:
        return str(self.policy["kind"])

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.policy["labels"])

    @property
    def heads(self) -> int:
        """Heads of the network: several are an ensemble with out-of-fold scores."""
        return int(self.train.members.shape[1])

    @property
    def outputs(self) -> int:
        """Logits of the network: one for a binary policy, else one a label."""
        return 1 if self.kind == "binary" else len(self.labels)


def read(train: Path, val: Path, tag_min: int, members: int = 1, seed: int = 0) -> Task:
    """Read the splits, for a network of so many members; `seed` shares them out among several.

    The vocabulary is of tags that at least `tag_min` training pictures have; artists are none.

    Raises:
        ModelError: if a split is missing or of another layout, or a label has too few pictures to train or to measure.
    """
    tables = [table(path) for path in (train, val)]
    policies = [json.loads(each.schema.metadata[b"mlpy"])["policy"] for each in tables]
    if policies[0] != policies[1]:
        raise ModelError(f"{train} and {val} are of different policies; run `dvc repro split`")
    counts = Counter(tag for tags in tables[0]["tags"].to_pylist() for tag in tags if not tag.startswith("artist:"))
    common = [tag for tag, count in counts.most_common(MOST_TAGS) if count >= tag_min]
    vocabulary = tuple(sorted(common))
    labels = list(policies[0]["labels"])
    task = Task(policies[0], vocabulary, *(_examples(each, labels, vocabulary) for each in tables))
    _check(task)
    return task if members == 1 else _crossfitted(task, tables, members, seed)


def table(path: Path) -> pa.Table:
    """A split's rows.

    Raises:
        ModelError: if it is missing or of another layout.
    """
    try:
        rows = pq.read_table(path)
    except FileNotFoundError:
        raise ModelError(f"no split {path}; run `dvc repro split`") from None
    except pa.ArrowException as error:
        raise ModelError(f"{path} is no parquet file that can be read; run `dvc repro split`") from error
    names = set(rows.column_names)
    if b"mlpy" not in (rows.schema.metadata or {}) or not {"image_id", "tags", "group"} <= names or not names & LABELS:
        raise ModelError(f"{path} lacks the policy or columns that the split stage writes; run `dvc repro split`")
    return rows


def labelled(rows: pa.Table, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which labels each of a split's rows has: [n, labels]."""
    given = rows["labels"].to_pylist() if "labels" in rows.column_names else [[x] for x in rows["label"].to_pylist()]
    return _many_hot(given, labels)


def _crossfitted(task: Task, tables: list[pa.Table], members: int, seed: int) -> Task:
    """The task of members that leave out a part of both splits each, and judge it."""
    ids, labels, tags = (
        np.concatenate([getattr(each, name) for each in (task.train, task.val)]) for name in ("ids", "labels", "tags")
    )
    order = np.argsort(ids)
    groups = np.concatenate([each["group"].to_numpy() for each in tables])[order]
    strata = np.unique(labels[order], axis=0, return_inverse=True)[1].reshape(-1)
    judged = held_out(ids[order], groups, strata, members, seed)
    each = (Examples(ids[order], labels[order], tags[order], use.astype(np.float32)) for use in (~judged, judged))
    return Task(task.policy, task.vocabulary, *each)


def _examples(rows: pa.Table, labels: list[str], vocabulary: tuple[str, ...]) -> Examples:
    return Examples(
        rows["image_id"].to_numpy(),
        labelled(rows, tuple(labels)).astype(np.float32),
        _many_hot(rows["tags"].to_pylist(), vocabulary),
        np.ones((rows.num_rows, 1), np.float32),
    )


def _many_hot(rows: list[list[str]], names: tuple[str, ...]) -> NDArray[np.bool_]:
    column = {name: place for place, name in enumerate(names)}
    out = np.zeros((len(rows), len(names)), np.bool_)
    for place, row in enumerate(rows):
        out[place, [column[name] for name in row if name in column]] = True
    return out


def _check(task: Task) -> None:
    for place, label in enumerate(task.labels):
        count = int(task.train.labels[:, place].sum())
        if count < LEAST:
            raise ModelError(
                f"label {label} has {count} training pictures, {LEAST} are needed: widen its tags in the policy, raise "
                "extract.limit, or leave the label out"
            )
        positives = int(task.val.labels[:, place].sum())
        if not 0 < positives < len(task.val.ids):
            said = "no" if not positives else "nothing but"
            raise ModelError(
                f"the validation split has {said} pictures of label {label}, so no score can be measured: raise "
                "split.val, or change split.seed"
            )
