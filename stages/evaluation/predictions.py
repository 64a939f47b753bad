"""The model on the test split: its predictions, and everything that is measured on them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.config.test import Test
from stages.dataset import targets
from stages.evaluation import intervals
from stages.evaluation.intervals import Groups
from stages.inference.predictor import BATCH, Predictor
from stages.inference.sidecar import NONE, Sidecar, decided
from stages.training import metrics
from stages.training.metrics import Flags, Floats
from stages.workspace import shards
from stages.workspace.errors import ModelError


@dataclass(frozen=True)
class Predictions:
    """What the model says of each picture of a split, beside what is so."""

    table: pa.Table
    """The split's rows, ascending by image_id."""
    truth: Flags
    """[n, labels], in the side-car's order."""
    scores: Floats
    """[n, labels]."""
    verdicts: list[str]

    @property
    def groups(self) -> Groups:
        """[n] each picture's group of near-duplicates."""
        groups: Groups = self.table["group"].to_numpy()
        return groups

    def actual(self, sidecar: Sidecar) -> list[str]:
        """Each picture's true label, worded as a verdict is."""
        names = np.array(sidecar.labels)
        return ["+".join(names[row]) or NONE for row in self.truth]

    def written(self, sidecar: Sidecar) -> pa.Table:
        """The rows of `predictions.parquet`: image_id, label or labels, group, score_LABEL for each label, verdict."""
        label = "labels" if sidecar.kind == "multilabel" else "label"
        found = self.table.select(["image_id", label, "group"]).replace_schema_metadata()
        for place, name in enumerate(sidecar.labels):
            found = found.append_column(f"score_{name}", pa.array(self.scores[:, place]))
        return found.append_column("verdict", pa.array(self.verdicts, pa.string()))


def read(split: Path, sidecar: Sidecar) -> tuple[pa.Table, Flags]:
    """A split's rows by ascending id, and their labels [n, labels].

    Raises:
        ModelError: if there is none, it has another policy than the model, or lacks a label.
    """
    table = targets.table(split).sort_by("image_id")
    policy = json.loads(table.schema.metadata[b"mlpy"])["policy"]
    if policy != sidecar.policy:
        raise ModelError(
            f"{split} is of the policy {policy['name']}, the model of {sidecar.policy['name']}, or its rules have "
            "changed since; run `dvc repro`"
        )
    truth = targets.labelled(table, sidecar.labels)
    for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        if not 0 < truth[:, place].sum() < len(truth):
            said = "no" if not truth[:, place].any() else "nothing but"
            raise ModelError(
                f"{split} has {said} pictures of label {label}, so nothing can be measured; set another split.seed or "
                "split.fold, or raise extract.limit"
            )
    return table, truth


def predict(split: Path, folder: Path, predictor: Predictor) -> Predictions:
    """Judge every picture of a split, from its bytes in a folder of shards, as the bot would.

    Raises:
        ModelError: as `read` does; or if a picture is in no shard, or cannot be judged.
    """
    table, truth = read(split, predictor.sidecar)
    ids = table["image_id"].to_pylist()
    scores, verdicts, seen = [], [], []
    with tqdm(total=len(ids), desc="judge", unit="picture", disable=None) as progress:
        for batch in batches(shards.pictures(folder, set(ids)), BATCH):
            seen += [image_id for image_id, _ in batch]
            for (image_id, _), judgement in zip(batch, predictor.judge([data for _, data in batch]), strict=True):
                if not judgement.scores:
                    raise ModelError(
                        f"image {image_id} cannot be judged ({judgement.verdict}: {judgement.detail}); lower "
                        "download.max_bytes or download.max_pixels to what the bot takes"
                    )
                scores.append(list(judgement.scores.values()))
                verdicts.append(judgement.verdict)
            progress.update(len(batch))
    if seen != ids:
        raise ModelError(f"{len(set(ids) - set(seen))} pictures of {split} are in no shard; run `dvc repro split`")
    return Predictions(table, truth, np.array(scores, np.float32), verdicts)


def batches(pictures: Iterator[tuple[int, bytes]], size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Pictures with their ids, `size` at a time, and what is left."""
    while batch := list(itertools.islice(pictures, size)):
        yield batch


def evaluate(predictions: Predictions, sidecar: Sidecar, params: Test) -> dict[str, Any]:
    """What `metrics.json` says: metrics averaged over labels, and where several are decided, each label's own."""
    labels = decided(sidecar.kind, sidecar.labels)
    thresholds = [sidecar.thresholds[label] for label in labels]
    each = metrics.of_labels(predictions.scores, predictions.truth, thresholds)
    resamples = intervals.resampled(
        predictions.scores, predictions.truth, thresholds, predictions.groups, params.bootstrap, params.seed
    )
    averages = [metrics.averaged(resample) for resample in resamples]
    told: dict[str, Any] = dict(intervals.with_intervals(metrics.averaged(each), averages, params.confidence))
    if len(labels) == 1:
        told["threshold"] = thresholds[0]
    else:
        told["labels"] = {
            label: {
                **intervals.with_intervals(each[place], [resample[place] for resample in resamples], params.confidence),
                "threshold": thresholds[place],
            }
            for place, label in enumerate(labels)
        }
    return told | {
        "pictures": len(predictions.truth),
        "groups": len(np.unique(predictions.groups)),
        "confusion": confusion(predictions.actual(sidecar), predictions.verdicts),
    }


def confusion(actual: list[str], verdicts: list[str]) -> dict[str, dict[str, int]]:
    """True label -> verdict -> pictures."""
    counts = Counter(zip(actual, verdicts, strict=True))
    names = sorted({*actual, *verdicts})
    return {truth: {verdict: counts[truth, verdict] for verdict in names} for truth in sorted(set(actual))}


@dataclass(frozen=True)
class Mistake:
    """A picture on the wrong side of a label's threshold."""

    place: int
    """Row in the predictions."""
    label: str
    score: float
    missed: bool
    """The label was not given; else it was given wrongly."""
    margin: float
    """How far beyond the threshold, as a share of the way there is."""


def mistakes(predictions: Predictions, sidecar: Sidecar, count: int) -> list[Mistake]:
    """The worst mistakes: of each label half are missed, half false alarms; the worst come first."""
    found: list[Mistake] = []
    ruled = decided(sidecar.kind, sidecar.labels)
    for column, label in enumerate(ruled):
        threshold = sidecar.thresholds[label]
        for missed in (True, False):
            scores, truth = predictions.scores[:, column], predictions.truth[:, column]
            wrong = np.flatnonzero((truth == missed) & ((scores < threshold) == missed))
            margins = (threshold - scores) / threshold if missed else (scores - threshold) / max(1 - threshold, 1e-9)
            worst = wrong[np.argsort(-margins[wrong], kind="stable")][: max(1, count // (2 * len(ruled)))]
            found += [
                Mistake(int(place), label, float(scores[place]), missed, float(margins[place]))
                for place in (worst if count else [])
            ]
    return sorted(found, key=lambda mistake: (-mistake.margin, mistake.place))


def write_predictions(predictions: Predictions, sidecar: Sidecar, target: Path) -> None:
    """Write `predictions.parquet`."""
    pq.write_table(predictions.written(sidecar), target, compression="zstd")
