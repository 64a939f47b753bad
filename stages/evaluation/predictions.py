"""The model's predictions for the test split, the metrics measured on them, and the worst mistakes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.config.test import Test
from stages.dataset import targets
from stages.evaluation import intervals, label_metrics
from stages.evaluation.intervals import Groups
from stages.inference.predictor import BATCH, Predictor
from stages.inference.sidecar import NONE, Sidecar, decided
from stages.training import metrics
from stages.training.metrics import Flags, Floats
from stages.workspace import shards
from stages.workspace.errors import ModelError
from stages.workspace.progress import Progress


@dataclass(frozen=True)
class Predictions:
    """The scores and verdicts of a split's pictures, with their true labels."""

    table: pa.Table
    """The split's rows, ascending by image_id."""
    truth: Flags
    """[n, labels], in the side-car's order."""
    scores: Floats
    """[n, labels]."""
    verdicts: list[str]

    @property
    def groups(self) -> Groups:
        """[n] the group of near-duplicates that each picture belongs to."""
        groups: Groups = self.table["group"].to_numpy()
        return groups

    def true_verdicts(self, sidecar: Sidecar) -> list[str]:
        """The verdict that each picture's true labels call for."""
        names = np.array(sidecar.labels)
        return ["+".join(names[row]) or NONE for row in self.truth]

    def to_table(self, sidecar: Sidecar) -> pa.Table:
        """The rows of `predictions.parquet`: image_id, label or labels, group, score_LABEL for each label, verdict."""
        label = "labels" if sidecar.kind == "multilabel" else "label"
        table = self.table.select(["image_id", label, "group"]).replace_schema_metadata()
        for column, name in enumerate(sidecar.labels):
            table = table.append_column(f"score_{name}", pa.array(self.scores[:, column]))
        return table.append_column("verdict", pa.array(self.verdicts, pa.string()))


def read_split(split: Path, sidecar: Sidecar) -> tuple[pa.Table, Flags]:
    """Read a split's rows, ascending by image_id, and their true labels [n, labels].

    Raises:
        ModelError: if the split is missing, was made for another policy than the model, or has no positives or no
            negatives of a label.
    """
    table = targets.table(split).sort_by("image_id")
    policy = json.loads(table.schema.metadata[b"mlpy"])["policy"]
    if policy != sidecar.policy:
        raise ModelError(
            f"{split} was made for the policy {policy['name']}, but the model was trained for {sidecar.policy['name']} "
            "or for other rules of it; run `dvc repro`"
        )
    truth = targets.labelled(table, sidecar.labels)
    for column, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        if not 0 < truth[:, column].sum() < len(truth):
            lacking = "with" if not truth[:, column].any() else "without"
            raise ModelError(
                f"{split} has no pictures {lacking} the label {label}, so its metrics are undefined; set another "
                "split.seed or split.fold, or raise extract.limit"
            )
    return table, truth


def predict(split: Path, folder: Path, predictor: Predictor) -> Predictions:
    """Judge every picture of a split with the predictor that the bot uses.

    Args:
        split: a split's parquet file.
        folder: of shards, which hold the pictures' bytes.
        predictor: the exported model.

    Raises:
        ModelError: as `read_split` does; or if a picture is in no shard, or cannot be judged.
    """
    table, truth = read_split(split, predictor.sidecar)
    ids = table["image_id"].to_pylist()
    scores, verdicts, seen = [], [], []
    with Progress("judge", len(ids)) as progress:
        for batch in batches(shards.pictures(folder, set(ids)), BATCH):
            seen += [image_id for image_id, _ in batch]
            for (image_id, _), judgement in zip(batch, predictor.judge([data for _, data in batch]), strict=True):
                if not judgement.scores:
                    raise ModelError(
                        f"image {image_id} cannot be judged ({judgement.verdict}: {judgement.detail}); lower "
                        "download.max_bytes or download.max_pixels to the bot's limits"
                    )
                scores.append(list(judgement.scores.values()))
                verdicts.append(judgement.verdict)
            progress.update(len(batch))
    # Scores are matched with the split's rows by position: shards yield pictures ascending by id, as the rows are.
    if seen != ids:
        raise ModelError(f"{len(set(ids) - set(seen))} pictures of {split} are in no shard; run `dvc repro split`")
    return Predictions(table, truth, np.array(scores, np.float32), verdicts)


def batches(pictures: Iterator[tuple[int, bytes]], size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Split (image_id, bytes) pairs into lists of `size`; the last may be shorter."""
    while batch := list(itertools.islice(pictures, size)):
        yield batch


def balanced_sample(predictions: Predictions, sidecar: Sidecar, count: int) -> NDArray[np.int64]:
    """Rows, ascending, of up to `count` positives and as many negatives of each label, evenly spaced in the split."""
    # Evenly spaced, not random: it needs no seed, and ids are ordered by upload, so all years are in it.
    sample: set[int] = set()
    for column, _ in enumerate(decided(sidecar.kind, sidecar.labels)):
        for side in (predictions.truth[:, column], ~predictions.truth[:, column]):
            rows = np.flatnonzero(side)
            sample |= set(rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].tolist())
    return np.array(sorted(sample))


def measure_predictions(predictions: Predictions, sidecar: Sidecar, params: Test) -> dict[str, Any]:
    """Measure metrics with intervals, averaged over labels, and the confusion matrix.

    A policy of several labels gets each label's own metrics, too, under `labels`.
    """
    labels = decided(sidecar.kind, sidecar.labels)
    chosen = [sidecar.thresholds[label] for label in labels]
    values = label_metrics.of_labels(predictions.scores, predictions.truth, chosen)
    resamples = intervals.resampled(
        predictions.scores, predictions.truth, chosen, predictions.groups, params.bootstrap, params.seed
    )
    positives = predictions.truth[:, : len(labels)].sum(0).tolist()
    # Averaged within a resample, so that the interval of the mean accounts for labels that vary together.
    averages = [metrics.averaged(resample) for resample in resamples]
    results: dict[str, Any] = dict(intervals.with_intervals(metrics.averaged(values), averages, params.confidence))
    if len(labels) == 1:
        results |= {"threshold": chosen[0], "positives": positives[0]}
    else:
        results["labels"] = {
            label: {
                **intervals.with_intervals(
                    values[column], [resample[column] for resample in resamples], params.confidence
                ),
                "threshold": chosen[column],
                "positives": positives[column],
            }
            for column, label in enumerate(labels)
        }
    return results | {
        "pictures": len(predictions.truth),
        "groups": len(np.unique(predictions.groups)),
        "confusion": confusion(predictions.true_verdicts(sidecar), predictions.verdicts),
    }


def confusion(true_verdicts: list[str], verdicts: list[str]) -> dict[str, dict[str, int]]:
    """True verdict -> the model's verdict -> count of pictures."""
    counts = Counter(zip(true_verdicts, verdicts, strict=True))
    names = sorted({*true_verdicts, *verdicts})
    return {truth: {verdict: counts[truth, verdict] for verdict in names} for truth in sorted(set(true_verdicts))}


@dataclass(frozen=True)
class Mistake:
    """A picture on the wrong side of a label's threshold."""

    row: int
    """In the predictions."""
    label: str
    score: float
    missed: bool
    """A false negative; otherwise a false positive."""
    margin: float
    """Distance from the threshold, as a share of the distance from the threshold to 0 or 1."""


def worst_mistakes(
    predictions: Predictions, sidecar: Sidecar, count: int, without: Collection[int] = ()
) -> list[Mistake]:
    """Up to `count` mistakes, worst first: each label's share is half false negatives, half false positives.

    Rows of `without` are passed over: their labels may be wrong.
    """
    mistakes: list[Mistake] = []
    labels = decided(sidecar.kind, sidecar.labels)
    sure = _others(len(predictions.truth), without)
    for column, label in enumerate(labels):
        threshold = sidecar.thresholds[label]
        for missed in (True, False):
            scores, truth = predictions.scores[:, column], predictions.truth[:, column]
            wrong = np.flatnonzero((truth == missed) & ((scores < threshold) == missed) & sure)
            # Relative margins compare both kinds of mistakes; 1e-9 is for a threshold of 1.
            margins = (threshold - scores) / threshold if missed else (scores - threshold) / max(1 - threshold, 1e-9)
            worst = wrong[np.argsort(-margins[wrong], kind="stable")][: max(1, count // (2 * len(labels)))]
            mistakes += [
                Mistake(int(row), label, float(scores[row]), missed, float(margins[row]))
                for row in (worst if count else [])
            ]
    return sorted(mistakes, key=lambda mistake: (-mistake.margin, mistake.row))


def right_examples(
    predictions: Predictions, sidecar: Sidecar, count: int, without: Collection[int] = ()
) -> list[tuple[int, str, float, bool]]:
    """Up to `count` pictures on the right side of a label's threshold: row, label, score, and whether it has the label.

    Each label's share is half true positives, half true negatives. Both are evenly spaced by score, from the surest to
    the nearest to the threshold: the surest alone would say nothing. Rows of `without` are passed over.
    """
    examples = []
    labels = decided(sidecar.kind, sidecar.labels)
    sure = _others(len(predictions.truth), without)
    for column, label in enumerate(labels):
        scores, truth = predictions.scores[:, column], predictions.truth[:, column]
        for positive in (True, False):
            right = np.flatnonzero((truth == positive) & ((scores >= sidecar.thresholds[label]) == positive) & sure)
            ranked = right[np.argsort(-scores[right] if positive else scores[right], kind="stable")]
            share = min(len(ranked), -(-count // (2 * len(labels))))
            examples += [
                (int(row), label, float(scores[row]), positive)
                for row in ranked[np.linspace(0, len(ranked) - 1, share).astype(int)]
            ]
    return examples[:count]


def _others(count: int, without: Collection[int]) -> Flags:
    """[count] which rows are not in `without`."""
    flags = np.ones(count, bool)
    flags[list(without)] = False
    return flags
