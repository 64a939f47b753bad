"""What a trained network is worth on the validation split, and the calibration and thresholds chosen there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from stages.config.train import Train
from stages.dataset.targets import Task
from stages.inference.sidecar import decided
from stages.training import calibration, metrics
from stages.training.batches import Data
from stages.training.calibration import Calibration, calibrated
from stages.training.learner import judged
from stages.training.metrics import Floats


@dataclass(frozen=True)
class Assessment:
    """Fitted to and measured on the validation split; the test split tells what it is worth elsewhere."""

    calibration: Calibration
    thresholds: dict[str, float]
    metrics: dict[str, float]


@torch.no_grad()
def assess(network: nn.Module, task: Task, data: Data, params: Train, fitted: Calibration | None = None) -> Assessment:
    """Score the validation pictures, calibrate, choose thresholds for the parameters' goal, measure.

    With `fitted` the calibration is given, and not fitted anew.
    """
    network.eval().cpu()
    logits = []
    with tqdm(total=len(data.val), desc="validation", unit="picture", disable=None, leave=False) as progress:
        for places in _parts(len(data.val), params.batch_size):
            inputs, _labels, _tags, members = data.val.__getitems__(places)
            logits.append(judged(network(inputs)[0].float(), members))
            progress.update(len(places))
    every = torch.cat(logits)
    if fitted is None:
        with torch.enable_grad():
            fitted = calibration.fit(every, torch.from_numpy(task.val.labels), task.kind)
    return measured(calibrated(every, task.kind, fitted).numpy(), fitted, task, params)


def measured(scores: Floats, fitted: Calibration, task: Task, params: Train) -> Assessment:
    """Choose thresholds on calibrated scores of the validation pictures [n, labels], measure."""
    thresholds = calibration.thresholds(
        scores, task.val.labels, task.kind, task.labels, params.threshold_objective, params.target_rate
    )
    ruled = [thresholds[label] for label in decided(task.kind, task.labels)]
    found = metrics.averaged(metrics.of_labels(scores, task.val.labels > 0, ruled))
    return Assessment(fitted, thresholds, {name: round(value, metrics.DIGITS) for name, value in sorted(found.items())})


def _parts(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
