"""Results of many runs, from a committed CSV file: what the report says of other folds, artists, origins and models.

`python -m stages.experiments record` adds the finished experiments to the file.
"""

from __future__ import annotations

import csv
import json
import statistics
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stages.workspace.errors import ModelError
from stages.workspace.files import replacing

FILE = Path(__file__).with_name("folds.csv")
RECALL_AT = "recall_at_1_percent_fpr"
"""The metric: the largest recall at a false positive rate of at most 1 %."""
SCORES = ("auroc", "average_precision", RECALL_AT)
BASELINE = "mini_xception"
"""The model that others are compared with: it learns from the board's pictures alone."""
GROUPINGS = {"content": "new pictures", "artist": "new artists", "origin": "new origins"}
"""`split.group_by` -> what a fold's test pictures are."""
FEWEST = 20
"""Positives that a fold needs to count: scores over fewer are noise."""
TYPICAL = 0.5
"""Standard deviations from the mean within which a fold is neither easy nor hard."""
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Row:
    """One run's scores on its test split: a line of the file."""

    source: str
    """The picture hosts."""
    policy: str
    rules: str
    """Checksum of the policy's labels and rules: after an edit of a tag, older results are not the policy's."""
    group_by: str
    fold: str
    """Its number, or the name of what was left out of training."""
    seed: int
    model: str
    backbone: str
    """"none" if there is none."""
    pictures: int
    """Of all folds together, which tells data sets apart."""
    positives: int | None
    """In the test split, over all labels; None if it was not recorded."""
    auroc: float
    average_precision: float
    recall_at_1_percent_fpr: float | None
    """None if it was not measured."""

    @property
    def key(self) -> tuple[object, ...]:
        """What a second run of the same would share."""
        return (self.source, self.policy, self.group_by, self.fold, self.seed, self.model, self.backbone)


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Spread:
    """One score over folds."""

    mean: float
    low: float
    high: float
    """The lowest and the highest fold's."""
    folds: tuple[tuple[str, float], ...]
    """Name and score of each, by name."""

    @property
    def deviation(self) -> float:
        """Standard deviation over folds; 0 for a single fold."""
        return statistics.stdev(score for _, score in self.folds) if len(self.folds) > 1 else 0.0


@dataclass(frozen=True)
class Summary:
    """One model's scores over the folds of one grouping."""

    group_by: str
    model: str
    backbone: str
    pictures: int
    scores: dict[str, Spread]
    """Metric -> its values; without the metrics that a fold lacks."""
    too_few: tuple[str, ...] = ()
    """Folds left out, which have fewer than `FEWEST` positives."""


def checksum(policy: dict[str, Any]) -> str:
    """Eight hex digits that change with a policy's kind, labels and rules: of what side-car and splits hold."""
    content = {name: policy[name] for name in ("kind", "labels", "rules")}
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def read(path: Path = FILE) -> list[Row]:
    """Read the results.

    Raises:
        ModelError: if the file is missing, has other columns, or a line that is no result.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ModelError(f"{path} must have the columns {','.join(COLUMNS)}")
            rows = [_row(path, number, line) for number, line in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"the results {path} cannot be read ({error}); restore the file with git") from error
    if len(rows) > MOST_ROWS:
        raise ModelError(f"{path} has {len(rows):,} lines, which is more than {MOST_ROWS:,}")
    return rows


def _row(path: Path, number: int, line: dict[str, Any]) -> Row:
    try:
        if None in line or None in line.values():
            raise ValueError(f"it needs {len(COLUMNS)} cells")
        row = Row(
            **{name: line[name] for name in ("source", "policy", "rules", "group_by", "fold", "model", "backbone")},
            seed=int(line["seed"]),
            pictures=int(line["pictures"]),
            positives=int(line["positives"]) if line["positives"] else None,
            auroc=float(line["auroc"]),
            average_precision=float(line["average_precision"]),
            recall_at_1_percent_fpr=float(line[RECALL_AT]) if line[RECALL_AT] else None,
        )
        if row.group_by not in GROUPINGS:
            raise ValueError(f"group_by is one of {', '.join(GROUPINGS)}")
        if not all(value is None or 0 <= value <= 1 for value in (getattr(row, name) for name in SCORES)):
            raise ValueError("scores are from 0 to 1")
    except ValueError as error:
        raise ModelError(f"line {number} of {path} is no result: {error}") from error
    return row


def write(rows: Iterable[Row], path: Path = FILE) -> None:
    """Write results, sorted."""
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: tuple(map(str, row.key))))


def merged(rows: Sequence[Row], newer: Sequence[Row]) -> list[Row]:
    """The rows, those with the key of a newer one replaced by it."""
    return list({row.key: row for row in (*rows, *newer)}.values())


def summaries(rows: Sequence[Row], source: str, policy: dict[str, Any], pictures: int) -> list[Summary]:
    """The results of one source and policy, summarised by grouping and model, in the order of `GROUPINGS`.

    Of several data sets, told apart by their number of pictures, only one counts for a model: this run's, or else the
    largest.

    Args:
        rows: of the file.
        source: the picture hosts.
        policy: as in the side-car.
        pictures: of this run's data set.
    """
    ours = [row for row in rows if (row.source, row.rules) == (source, checksum(policy))]
    result = []
    for group_by in GROUPINGS:
        of_group = [row for row in ours if row.group_by == group_by]
        for model, backbone in sorted({(row.model, row.backbone) for row in of_group}):
            of_model = [row for row in of_group if (row.model, row.backbone) == (model, backbone)]
            sizes = {row.pictures for row in of_model}
            size = pictures if pictures in sizes else max(sizes)
            of_size = [row for row in of_model if row.pictures == size]
            enough = [row for row in of_size if row.positives is None or row.positives >= FEWEST]
            scores = {name: spread for name in SCORES if (spread := _spread(enough, name))}
            if scores:
                too_few = sorted({row.fold for row in of_size} - {row.fold for row in enough})
                result.append(Summary(group_by, model, backbone, size, scores, tuple(too_few)))
    return result


def _spread(rows: list[Row], name: str) -> Spread | None:
    """A score over folds, several seeds of a fold counting by their mean; None if a fold lacks it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if (value := getattr(row, name)) is None:
            return None
        values.setdefault(row.fold, []).append(value)
    if not values:
        return None
    folds = tuple((fold, statistics.fmean(values[fold])) for fold in sorted(values))
    scores = [score for _, score in folds]
    return Spread(statistics.fmean(scores), min(scores), max(scores), folds)


def difficulty(summary: Summary, fold: str) -> str:
    """Whether a fold is `easy`, `hard` or `typical` for a model, by AUROC; "" with too few folds to compare."""
    spread = summary.scores["auroc"]
    own = dict(spread.folds).get(fold)
    if own is None or len(spread.folds) < 3 or not spread.deviation:
        return ""
    distance = (own - spread.mean) / spread.deviation
    return "typical" if abs(distance) <= TYPICAL else "easy" if distance > 0 else "hard"
