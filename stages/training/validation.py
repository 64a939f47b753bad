"""A trained network's validation: calibration and thresholds are chosen on the validation pictures, then measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from stages.config.train import Train
from stages.dataset.targets import Task
from stages.inference.sidecar import decided
from stages.training import calibration, metrics
from stages.training.batches import DataModule
from stages.training.calibration import Calibration, calibrated
from stages.training.lit_classifier import out_of_fold
from stages.training.metrics import Floats
from stages.workspace.progress import Progress


@dataclass(frozen=True)
class Validation:
    """What was chosen on the validation pictures, and measured on the same ones, so a little too good.

    The test stage measures on pictures that nothing was chosen on.
    """

    calibration: Calibration
    thresholds: dict[str, float]
    metrics: dict[str, float]


@torch.no_grad()
def validate(
    network: nn.Module, task: Task, data: DataModule, params: Train, fitted: Calibration | None = None
) -> Validation:
    """Score the validation pictures, calibrate the scores, choose thresholds, and measure.

    Args:
        network: the trained part.
        task: its labels.
        data: its inputs.
        params: `threshold_objective`, `target_rate`, `batch_size`.
        fitted: a calibration to use; without, one is fitted.
    """
    network.eval().cpu()
    parts = []
    with Progress("validation", len(data.val)) as progress:
        for start in range(0, len(data.val), params.batch_size):
            places = list(range(start, min(start + params.batch_size, len(data.val))))
            inputs, _labels, _tags, heads = data.val.__getitems__(places)
            parts.append(out_of_fold(network(inputs)[0].float(), heads))
            progress.update(len(places))
    logits = torch.cat(parts)
    if fitted is None:
        with torch.enable_grad():
            fitted = calibration.fit(logits, torch.from_numpy(task.val.labels), task.kind)
    return validate_scores(calibrated(logits, task.kind, fitted).numpy(), fitted, task, params)


def validate_scores(scores: Floats, fitted: Calibration, task: Task, params: Train) -> Validation:
    """Choose thresholds and measure, given the calibrated scores of the validation pictures [n, labels]."""
    thresholds = calibration.thresholds(
        scores, task.val.labels, task.kind, task.labels, params.threshold_objective, params.target_rate
    )
    in_order = [thresholds[label] for label in decided(task.kind, task.labels)]
    measured = metrics.averaged(metrics.of_labels(scores, task.val.labels > 0, in_order))
    rounded = {name: round(value, metrics.DIGITS) for name, value in sorted(measured.items())}
    return Validation(fitted, thresholds, rounded)
