"""Splits -> training targets: each picture's labels, its tags as auxiliary targets, and the heads that learn from it.

A network with one head learns from the train split and is measured on the val split. A network with several heads is an
ensemble with out-of-fold scores (cross-fitting): train and val are pooled and divided into a part per head. Each head
learns from all pictures but its own part, and gives the out-of-fold scores of that part. So the ensemble has learnt
from every picture, and epochs, calibration and thresholds are still chosen on scores of pictures that the scoring head
has not seen. Groups of near-duplicates stay in one part; each artist's or each origin's pictures, too, if thresholds
are to hold for those whose pictures nobody has learnt from.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.dataset import grouping
from stages.dataset.grouping import Flags, Ints, LinkRule
from stages.workspace.errors import ModelError

LEAST = 20
"""Training pictures that a label needs: with fewer, results are mostly chance."""
LABELS = {"label", "labels"}
"""Columns, of which a split has one: `labels`, a list, for a multilabel policy."""
ORIGIN, LICENCE = "origin:", "licence:"
PROVENANCE = ("artist:", ORIGIN, LICENCE)
"""Prefixes of tags that tell where a picture comes from and not what it shows."""
MOST_TAGS = 2000
"""Most tags that are auxiliary targets; a board may have hundreds of thousands."""


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets."""

    ids: NDArray[np.int64]
    labels: NDArray[np.float32]
    """[n, labels], 0 or 1; exactly one 1 per row unless multilabel."""
    tags: NDArray[np.bool_]
    """[n, tags] of the task's vocabulary."""
    heads: NDArray[np.float32]
    """[n, heads], 1 for each head that learns from the picture (`Task.train`) or scores it (`Task.val`), else 0."""


@dataclass(frozen=True)
class Task:
    """What is learnt, and from which pictures."""

    policy: dict[str, Any]
    """Name, kind and labels, from the splits' metadata."""
    vocabulary: tuple[str, ...]
    """The tags that are auxiliary targets."""
    train: Examples
    """To learn from."""
    val: Examples
    """To measure on. No head scores a picture that it has learnt from, or a near-duplicate of one."""
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As in the side-car: where the pictures of both splits are from."""

    @property
    def kind(self) -> str:
        """`binary`, `multiclass` or `multilabel`."""
        return str(self.policy["kind"])

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.policy["labels"])

    @property
    def heads(self) -> int:
        """Heads of the network: several are an ensemble with out-of-fold scores."""
        return int(self.train.heads.shape[1])

    @property
    def outputs(self) -> int:
        """Logits per head: one for a binary policy, else one per label."""
        return 1 if self.kind == "binary" else len(self.labels)


def read(train: Path, val: Path, tag_min: int, heads: int = 1, seed: int = 0, parts: str = "content") -> Task:
    """Read the train and val splits.

    Args:
        train: the train split.
        val: the val split.
        tag_min: training pictures that a tag needs to be in the vocabulary. `PROVENANCE` tags never are.
        heads: of the network.
        seed: decides each head's part, if there are several.
        parts: what stays in one part: near-duplicates (`content`), also each `artist`, or each `origin`; a picture
            without an origin then stays with its artist's.

    Raises:
        ModelError: if a split is missing or invalid, or a label has too few pictures to train or to measure.
    """
    tables = [table(path) for path in (train, val)]
    policies = [json.loads(split.schema.metadata[b"mlpy"])["policy"] for split in tables]
    if policies[0] != policies[1]:
        raise ModelError(f"{train} and {val} are of different policies; run `dvc repro split`")
    counts = Counter(tag for tags in tables[0]["tags"].to_pylist() for tag in tags if not tag.startswith(PROVENANCE))
    # Sorted, so that the order of outputs does not depend on the order of equal counts.
    vocabulary = tuple(sorted(tag for tag, count in counts.most_common(MOST_TAGS) if count >= tag_min))
    labels = list(policies[0]["labels"])
    examples = [_examples(split, labels, vocabulary) for split in tables]
    task = Task(policies[0], vocabulary, examples[0], examples[1], _origins(tables))
    _check(task)
    return task if heads == 1 else _out_of_fold(task, tables, heads, seed, parts)


def table(path: Path) -> pa.Table:
    """Read a split's rows.

    Raises:
        ModelError: if the file is missing or invalid.
    """
    try:
        rows = pq.read_table(path)
    except FileNotFoundError:
        raise ModelError(f"no split {path}; run `dvc repro split`") from None
    except pa.ArrowException as error:
        raise ModelError(f"{path} is not a readable parquet file; run `dvc repro split`") from error
    names = set(rows.column_names)
    if b"mlpy" not in (rows.schema.metadata or {}) or not {"image_id", "tags", "group"} <= names or not names & LABELS:
        raise ModelError(f"{path} lacks the policy or columns that the split stage writes; run `dvc repro split`")
    return rows


def labelled(rows: pa.Table, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which labels each row of a split has: [n, labels]."""
    if "labels" in rows.column_names:
        return _many_hot(rows["labels"].to_pylist(), labels)
    return _many_hot([[label] for label in rows["label"].to_pylist()], labels)


def _out_of_fold(task: Task, tables: list[pa.Table], heads: int, seed: int, kept_whole: str) -> Task:
    """Pool train and val: each head scores one part of the pictures, and learns from the others."""
    ids, labels, tags = (
        np.concatenate([getattr(examples, name) for examples in (task.train, task.val)])
        for name in ("ids", "labels", "tags")
    )
    order = np.argsort(ids)  # grouping takes pictures in ascending order of id
    # Each distinct combination of labels is a stratum.
    strata = np.unique(labels[order], axis=0, return_inverse=True)[1].reshape(-1)
    scores = _parts(ids[order], _kept_whole(tables, order, kept_whole), strata, heads, seed)
    kept = scores.any(1)
    order, scores = order[kept], scores[kept]
    train, val = (
        Examples(ids[order], labels[order], tags[order], flags.astype(np.float32)) for flags in (~scores, scores)
    )
    return replace(task, train=train, val=val)


def _kept_whole(tables: list[pa.Table], order: Ints, kept_whole: str) -> list[LinkRule]:
    """What one part has all pictures of: near-duplicates, also an artist's or an origin's.

    With `origin`, a picture without one stays with its artist's.

    Args:
        tables: the splits.
        order: [n] rows of both in ascending order of id.
        kept_whole: `content`, `artist` or `origin`.

    Raises:
        ModelError: if a split lacks the column.
    """
    columns = ("group", *{"artist": ("artist",), "origin": ("artist", "origin")}.get(kept_whole, ()))
    try:
        rows = pa.concat_tables(split.select(columns) for split in tables).take(order)
    except KeyError as error:
        raise ModelError(f"the splits have no column {kept_whole}; run `dvc repro split`") from error
    rules = [grouping.by_value("group", rows["group"])]
    if kept_whole == "origin":
        artists = pc.if_else(pc.is_valid(rows["origin"]), None, rows["artist"])
        return [*rules, grouping.by_value("artist", artists), grouping.by_value("origin", rows["origin"])]
    return [*rules, grouping.by_value("artist", rows["artist"])] if kept_whole == "artist" else rules


def _parts(ids: Ints, rules: list[LinkRule], strata: Ints, heads: int, seed: int) -> Flags:
    """Divide pictures into parts, as the split stage divides them into buckets: by hash, stratified, groups kept whole.

    Origins are few and of all sizes: they take turns, the largest first, and are not stratified.

    Args:
        ids: [n] ascending.
        rules: what stays in one part.
        strata: [n] labels as numbers from 0; each part has its share of each.
        heads: number of parts.
        seed: of the hash.

    Returns:
        [n, heads] which head's part each picture is in: one per row, or none of a picture that links two parts.
    """
    weights = np.full(heads, 1 / heads)
    preferred = grouping.bucket_preferences(ids, seed, weights)
    if rules[-1].name == "origin":
        pictures, origins = rules[-1].pictures, rules[-1].keys
        turn = np.argsort(np.argsort(-np.bincount(origins), kind="stable"))
        preferred[pictures] = (turn[origins][:, None] + seed + np.arange(heads)) % heads
        strata = strata.copy()
        strata[pictures] = strata.max(initial=0) + 1 + np.arange(len(pictures))
    _groups, parts = grouping.assign(rules, preferred, weights, strata)
    flags: Flags = parts[:, None] == np.arange(heads)
    return flags


def _examples(rows: pa.Table, labels: list[str], vocabulary: tuple[str, ...]) -> Examples:
    return Examples(
        rows["image_id"].to_numpy(),
        labelled(rows, tuple(labels)).astype(np.float32),
        _many_hot(rows["tags"].to_pylist(), vocabulary),
        np.ones((rows.num_rows, 1), np.float32),
    )


def _origins(tables: list[pa.Table]) -> dict[str, dict[str, Any]]:
    """Origin -> its number of `pictures` and their `licences`, the largest origin first."""
    pictures: Counter[str] = Counter()
    licences: dict[str, set[str]] = {}
    for tags in (row for split in tables for row in split["tags"].to_pylist()):
        stated = {tag.removeprefix(LICENCE) for tag in tags if tag.startswith(LICENCE)}
        for origin in (tag.removeprefix(ORIGIN) for tag in tags if tag.startswith(ORIGIN)):
            pictures[origin] += 1
            licences.setdefault(origin, set()).update(stated)
    largest_first = sorted(pictures.items(), key=lambda item: (-item[1], item[0]))
    return {name: {"pictures": count, "licences": sorted(licences[name])} for name, count in largest_first}


def _many_hot(rows: list[list[str]], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which of the names each row holds: [rows, names]. Other values are ignored."""
    column = {name: place for place, name in enumerate(names)}
    flags = np.zeros((len(rows), len(names)), np.bool_)
    for place, row in enumerate(rows):
        flags[place, [column[name] for name in row if name in column]] = True
    return flags


def _check(task: Task) -> None:
    """Fail early if a label cannot be learnt or measured."""
    for place, label in enumerate(task.labels):
        count = int(task.train.labels[:, place].sum())
        if count < LEAST:
            raise ModelError(
                f"label {label} has {count} training pictures but needs {LEAST}: add tags to it in the policy, raise "
                "extract.limit, or remove the label"
            )
        positives = int(task.val.labels[:, place].sum())
        if not 0 < positives < len(task.val.ids):
            which = "no" if not positives else "only"
            raise ModelError(
                f"the validation split has {which} pictures of label {label}, so no score can be measured: raise "
                "split.val, or change split.seed"
            )
