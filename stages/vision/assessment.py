"""What a trained network is worth on the validation split, and the calibration and thresholds chosen there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    binary_precision,
    binary_recall,
)

from stages.params import Train
from stages.vision import calibration
from stages.vision.calibration import Calibration, calibrated
from stages.vision.dataset import Data
from stages.vision.sidecar import decided
from stages.vision.targets import Task


@dataclass(frozen=True)
class Assessment:
    """Fitted to and measured on the validation split; the test split tells what it is worth elsewhere."""

    calibration: Calibration
    thresholds: dict[str, float]
    metrics: dict[str, float]


@torch.no_grad()
def assess(network: nn.Module, task: Task, data: Data, params: Train) -> Assessment:
    """Score the validation split, calibrate, choose thresholds for the parameters' goal, measure."""
    network.eval().cpu()
    batches = (data.val.__getitems__(places) for places in _parts(len(data.val), params.batch_size))
    logits = torch.cat([network(inputs)[0].float() for inputs, _labels, _tags in batches])
    labels = torch.from_numpy(task.val.labels)
    with torch.enable_grad():
        fitted = calibration.fit(logits, labels, task.kind)
    scores = calibrated(logits, task.kind, fitted)
    thresholds = calibration.thresholds(
        scores.numpy(), task.val.labels, task.kind, task.labels, params.goal, params.goal_share
    )
    return Assessment(fitted, thresholds, _measure(scores, labels, thresholds, task))


def _parts(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _measure(scores: Tensor, labels: Tensor, thresholds: dict[str, float], task: Task) -> dict[str, float]:
    """Each metric of each label that has a threshold, averaged over them."""
    found: dict[str, list[float]] = {}
    for place, label in enumerate(decided(task.kind, task.labels)):
        score, truth = scores[:, place], labels[:, place].int()
        given = (score >= thresholds[label]).int()
        values: dict[str, Any] = {
            "auroc": binary_auroc(score, truth),
            "average_precision": binary_average_precision(score, truth),
            "f1": binary_f1_score(given, truth),
            "precision": binary_precision(given, truth),
            "recall": binary_recall(given, truth),
            "false_alarms": given[truth == 0].float().mean(),
            "calibration_error": binary_calibration_error(score, truth, n_bins=10),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return {name: round(sum(values) / len(values), 6) for name, values in found.items()}
