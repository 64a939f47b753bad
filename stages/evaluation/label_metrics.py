"""The metrics of the test split: those of the training, recall at 1 % false alarms, and the calibration error."""

from __future__ import annotations

import math

import numpy as np

from stages.evaluation.folds import RECALL_AT
from stages.evaluation.thresholds import recall_at
from stages.training import metrics
from stages.training.metrics import Flags, Floats

RMS_CALIBRATION_ERROR = "rms_calibration_error"
"""The metric: the root mean square difference between score and share of positives, over the bins of the scores."""
BINS = 10


def of_labels(scores: Floats, truth: Flags, thresholds: list[float]) -> list[dict[str, float]]:
    """The metrics of each label that has a threshold: scores and truth [n, labels], thresholds of the first labels.

    Instead of the mean absolute calibration error of the training's metrics there is its root mean square, as only of
    squares it is known how much chance adds to them: see `intervals.with_intervals`.
    """
    result = []
    for column, values in enumerate(metrics.of_labels(scores, truth, thresholds)):
        del values["calibration_error"]
        values[RMS_CALIBRATION_ERROR] = rms_calibration_error(scores[:, column], truth[:, column])
        values[RECALL_AT] = recall_at(scores[:, column], truth[:, column])
        result.append(values)
    return result


def rms_calibration_error(scores: Floats, truth: Flags) -> float:
    """The root mean square difference between mean score and share of positives over bins of equal width.

    Kumar, Liang & Ma, "Verified Uncertainty Calibration" (2019). This is the plain estimate, which chance raises.

    Args:
        scores: [n] of one label.
        truth: [n].
    """
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = np.bincount(places, weights=scores - truth, minlength=BINS)
    some = counts > 0
    return math.sqrt(float((sums[some] ** 2 / counts[some]).sum()) / len(scores))
