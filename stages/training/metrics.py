"""Scores and true labels -> metrics, by torchmetrics."""

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

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

SCORE_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auroc": binary_auroc,
    "average_precision": binary_average_precision,
    "calibration_error": partial(binary_calibration_error, n_bins=10),
}
"""Metrics of the scores, whatever the threshold."""
THRESHOLD_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "f1": binary_f1_score,
    "precision": binary_precision,
    "recall": binary_recall,
}
"""Metrics of the predictions at the threshold."""
DIGITS = 6
"""Decimal places that metrics are rounded to in files."""


def of_label(scores: Floats, truth: Flags, threshold: float) -> dict[str, float]:
    """Measure one label.

    Args:
        scores: [n] probabilities.
        truth: [n], with positives and negatives.
        threshold: a score at or above it is a positive prediction.

    Returns:
        auroc, average_precision, calibration_error, f1, precision, recall, false_positive_rate.
    """
    # torchmetrics needs contiguous tensors, and a label's scores are a column of a larger array.
    score, target = torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(truth).int()
    predicted = (score >= threshold).int()
    values = {name: float(metric(score, target)) for name, metric in SCORE_METRICS.items()}
    values |= {name: float(metric(predicted, target)) for name, metric in THRESHOLD_METRICS.items()}
    # torchmetrics only has specificity, which is 1 - the false positive rate.
    return values | {"false_positive_rate": float(predicted[target == 0].float().mean())}


def of_labels(scores: Floats, truth: Flags, thresholds: list[float]) -> list[dict[str, float]]:
    """Measure each label that has a threshold: scores and truth [n, labels], thresholds of the first labels."""
    return [of_label(scores[:, column], truth[:, column], threshold) for column, threshold in enumerate(thresholds)]


def averaged(labels: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over labels."""
    return {name: sum(label[name] for label in labels) / len(labels) for name in labels[0]}
