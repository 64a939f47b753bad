"""Scores against truth -> metrics, and how sure they are: bootstrap intervals over whole groups of pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    binary_precision,
    binary_recall,
)
from tqdm import tqdm

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Groups = NDArray[np.int64]

RANKING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auroc": binary_auroc,
    "average_precision": binary_average_precision,
    "calibration_error": partial(binary_calibration_error, n_bins=10),
}
"""Of the scores themselves."""
DECIDING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "f1": binary_f1_score,
    "precision": binary_precision,
    "recall": binary_recall,
}
"""Of what is at or over the threshold."""
DIGITS = 6


def measured(scores: Floats, truth: Flags, threshold: float) -> dict[str, float]:
    """One label's metrics.

    Args:
        scores: [n] probabilities.
        truth: [n], with both values in it.
        threshold: from which a picture is given the label.

    Returns:
        auroc, average_precision, calibration_error, f1, precision, recall, and false_alarms: the share of the other
        pictures that are given the label.
    """
    score, target = torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(truth).int()
    given = (score >= threshold).int()
    found = {name: float(metric(score, target)) for name, metric in RANKING.items()}
    found |= {name: float(metric(given, target)) for name, metric in DECIDING.items()}
    return found | {"false_alarms": float(given[target == 0].float().mean())}


def averaged(each: list[dict[str, float]]) -> dict[str, float]:
    """Each metric's mean over labels."""
    return {name: sum(label[name] for label in each) / len(each) for name in each[0]}


def of_labels(scores: Floats, truth: Flags, thresholds: list[float]) -> list[dict[str, float]]:
    """`measured` of each column that has a threshold: scores and truth [n, at least len(thresholds)]."""
    return [measured(scores[:, place], truth[:, place], threshold) for place, threshold in enumerate(thresholds)]


def resampled(
    scores: Floats, truth: Flags, thresholds: list[float], groups: Groups, count: int, seed: int
) -> list[list[dict[str, float]]]:
    """`of_labels` of `count` resamples: as many groups as there are, drawn with replacement, with all their pictures.

    Near-duplicates stand or fall together, so pictures drawn one by one would make intervals too narrow. A resample in
    which a label has no picture, or nothing else, says nothing and is left out.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    chance = np.random.default_rng(seed)
    found = []
    for _ in tqdm(range(count), "bootstrap", disable=None):
        drawn = np.concatenate([members[place] for place in chance.integers(0, len(members), len(members))])
        share = truth[drawn, : len(thresholds)].mean(0)
        if ((share > 0) & (share < 1)).all():
            found.append(of_labels(scores[drawn], truth[drawn], thresholds))
    return found


def with_intervals(
    values: dict[str, float], resamples: list[dict[str, float]], confidence: float
) -> dict[str, float | None]:
    """Each metric, and as `_low` and `_high` the ends of its percentile interval; None without resamples."""
    told: dict[str, float | None] = {}
    for name, value in values.items():
        told[name] = round(value, DIGITS)
        for end, share in (("low", (1 - confidence) / 2), ("high", (1 + confidence) / 2)):
            drawn = [resample[name] for resample in resamples]
            told[f"{name}_{end}"] = round(float(np.quantile(drawn, share)), DIGITS) if drawn else None
    return told
