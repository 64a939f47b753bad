"""ROC, precision-recall and reliability curves, with their uncertainty, and the tables of `dvc plots`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from stages.evaluation.intervals import Groups, rate
from stages.training.metrics import Flags, Floats

MAX_POINTS = 500
"""Of a curve; more than a screen can show."""
GRID_POINTS = 201
"""Of an average of curves."""
RELIABILITY_BINS = 10
MIN_PICTURES = 10
"""Of a reliability bin; bins with fewer are merged with their neighbours, as a rate over them would be noise."""
BAND_RESAMPLES = 200
BAND_POINTS = 60
ROC = ("false_positive_rate", "true_positive_rate")
PRECISION_RECALL = ("recall", "precision")
RELIABILITY = ("mean_score", "fraction_of_positives")
Curve = NDArray[np.float64]
"""[n, 2]: x and y."""


def roc(scores: Floats, truth: Flags) -> Curve:
    """The ROC curve of one label: scores and truth [n] -> false and true positive rates."""
    false, true, _ = binary_roc(torch.from_numpy(scores), torch.from_numpy(truth).int())
    return _thinned(np.stack([false.numpy(), true.numpy()], axis=1).astype(np.float64))


def precision_recall(scores: Floats, truth: Flags) -> Curve:
    """The precision-recall curve of one label: scores and truth [n] -> recall and precision."""
    precision, recall, _ = binary_precision_recall_curve(torch.from_numpy(scores), torch.from_numpy(truth).int())
    return _thinned(np.stack([recall.numpy(), precision.numpy()], axis=1).astype(np.float64))


def _thinned(curve: Curve) -> Curve:
    """Round the points, drop those inside straight lines, and keep at most `MAX_POINTS`."""
    curve = curve.round(5)
    if len(curve) > 2:
        steps = np.diff(curve, axis=0)
        # Two steps go in the same direction where their cross product is 0.
        turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
        curve = curve[np.r_[True, turns, True]]
    thinned: Curve = curve[np.unique(np.linspace(0, len(curve) - 1, min(len(curve), MAX_POINTS)).astype(int))]
    return thinned


def averaged(curves: list[Curve]) -> Curve:
    """The mean of several labels' curves at `GRID_POINTS` evenly spaced x; a single curve as it is."""
    if len(curves) == 1:
        return curves[0]
    grid = np.linspace(0, 1, GRID_POINTS)
    # np.interp needs ascending x, and a precision-recall curve starts at a recall of 1.
    ascending = [curve if curve[0, 0] <= curve[-1, 0] else curve[::-1] for curve in curves]
    means = np.mean([np.interp(grid, curve[:, 0], curve[:, 1]) for curve in ascending], axis=0)
    return np.stack([grid, means], axis=1).round(5)


@dataclass(frozen=True)
class Bin:
    """The pictures whose scores are in one range."""

    low: float
    high: float
    pictures: int
    mean_score: float
    fraction: float
    """Of positives, with its interval."""
    fraction_low: float
    fraction_high: float


def bins(scores: Floats, truth: Flags, groups: Groups, confidence: float) -> list[Bin]:
    """Divide one label's pictures by score: scores, truth and groups [n] -> at most `RELIABILITY_BINS` of equal width.

    A bin of fewer than `MIN_PICTURES` is merged with the next one, and the last with the one before it.
    """
    places = np.minimum((scores * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    ends: list[int] = []  # the first place that is no longer in the bin
    for end in range(1, RELIABILITY_BINS + 1):
        if int((places < end).sum() - (places < (ends or [0])[-1]).sum()) >= MIN_PICTURES:
            ends.append(end)
    ends = [*ends[:-1], RELIABILITY_BINS]
    result = []
    for start, end in zip([0, *ends], ends, strict=False):
        chosen = (places >= start) & (places < end)
        result.append(
            Bin(
                start / RELIABILITY_BINS,
                end / RELIABILITY_BINS,
                int(chosen.sum()),
                float(scores[chosen].mean()),
                *rate(truth[chosen], groups[chosen], confidence),
            )
        )
    return result


def reliability(parts: list[Bin]) -> Curve:
    """The reliability curve of one label: mean score and fraction of positives of each bin."""
    return np.array([(part.mean_score, part.fraction) for part in parts], np.float64).round(5)


@dataclass(frozen=True)
class Band:
    """A curve's pointwise interval."""

    x: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bands(scores: Floats, truth: Flags, groups: Groups, confidence: float, seed: int) -> tuple[Band, Band]:
    """Bootstrap one label's curves by whole groups: scores, truth and groups [n] -> the bands of ROC and of PR."""
    order = np.argsort(-scores, kind="stable")
    # A threshold cannot part pictures of equal scores, so a curve has points only where the score changes.
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(codes.max()) + 1
    negatives = max(2, int((~truth).sum()))
    rates, recalls = np.geomspace(1 / negatives, 1, BAND_POINTS), np.linspace(0, 1, BAND_POINTS)
    generator = np.random.default_rng(seed)
    found_at, precision_at = [], []
    for _ in range(BAND_RESAMPLES):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)[codes][order]
        found, alarms = (np.cumsum(weights * side[order])[ends] for side in (truth, ~truth))
        if not (found[-1] and alarms[-1]):
            continue  # all positive, or all negative
        recall, false_positive_rate = np.r_[0, found / found[-1]], np.r_[0, alarms / alarms[-1]]
        precision = np.r_[1, found / np.maximum(found + alarms, 1)]
        found_at.append(recall[np.searchsorted(false_positive_rate, rates, "right") - 1])
        precision_at.append(precision[np.searchsorted(recall, recalls, "left")])
    quantiles = ((1 - confidence) / 2, (1 + confidence) / 2)
    return (
        Band(rates, *(np.quantile(found_at, quantiles, axis=0) if found_at else np.ones((2, BAND_POINTS)))),
        Band(recalls, *(np.quantile(precision_at, quantiles, axis=0) if precision_at else np.ones((2, BAND_POINTS)))),
    )


def write_table(target: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file that `dvc plots` reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
