"""What a trained network is worth on the validation split, and the calibration and thresholds chosen there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from stages.params import Train
from stages.vision import calibration, metrics
from stages.vision.calibration import Calibration, calibrated
from stages.vision.dataset import Data
from stages.vision.metrics import Floats
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
    return judged(calibrated(logits, task.kind, fitted).numpy(), fitted, task, params)


def judged(scores: Floats, fitted: Calibration, task: Task, params: Train) -> Assessment:
    """Choose thresholds for the parameters' goal on calibrated scores of the validation split [n, labels], measure."""
    thresholds = calibration.thresholds(scores, task.val.labels, task.kind, task.labels, params.goal, params.goal_share)
    ruled = [thresholds[label] for label in decided(task.kind, task.labels)]
    found = metrics.averaged(metrics.of_labels(scores, task.val.labels > 0, ruled))
    return Assessment(fitted, thresholds, {name: round(value, metrics.DIGITS) for name, value in sorted(found.items())})


def _parts(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
