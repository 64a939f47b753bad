"""train and validation splits, shards of pictures -> an ONNX model from pixels to scores, and its side-car."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from stages.config.train import Train
from stages.dataset import targets
from stages.dataset.arrays import decoded
from stages.dataset.targets import Task
from stages.inference.sidecar import Sidecar
from stages.training import features, fitting, networks, precision, provenance
from stages.training.batches import Data
from stages.training.precision import Served
from stages.training.validation import assess
from stages.workspace import paths
from stages.workspace.cache import file_hash
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)


def main() -> None:
    """Train the model that `params.yaml` describes."""
    params = load(Train)
    heads, copies = getattr(params.model, "heads", 1), getattr(params.model, "augmented_copies", 0)
    task = targets.read(paths.SPLITS["train"], paths.SPLITS["val"], params.model.tag_min, heads, params.seed)
    fitting.repeatable(params)
    pictures = decoded(paths.SHARDS, params.size, params.background, params.threads)
    architecture = fitting.architecture(params, task)
    stem = networks.frozen_stem(architecture)
    rows = features.extracted(pictures, stem, params.threads) if stem else pictures
    views = [features.viewed(pictures, stem, params.threads, each) for each in range(copies)] if stem else []
    network = networks.trainable_part(architecture, rows.shape[0])
    fitting.standardise(network, rows, task.train.ids)
    with fitting.workplace(params, _data(), rows.names, provenance.digest(provenance.sources())) as folder:
        data = Data(task, rows, params, views)
        trainer, epochs = fitting.fit(network, task, data, params, folder)
        if trainer.is_global_zero:
            found = assess(network, task, data, params)
            model = networks.ExportModel(stem, network, task.kind, found.calibration)
            served = precision.serve(model, found, task, pictures, rows, params, folder)
            checkpoint = {
                "labels": list(task.labels),
                "architecture": dataclasses.asdict(architecture),
                "features": rows.shape[0],
                "state_dict": network.state_dict(),
            }
            _write_record(checkpoint, task, served, epochs, params, folder)


def _data() -> dict[str, str]:
    """md5 of each split that training sees, as in `dvc.lock`."""
    return {name: file_hash(paths.SPLITS[name], "md5") for name in ("train", "val")}


def _write_record(
    checkpoint: dict[str, Any], task: Task, served: Served, epochs: int, params: Train, folder: Path
) -> None:
    """The side-car, the weights in torch's format, metrics, curves."""
    found = served.assessment
    Sidecar(
        name=task.policy["name"],
        kind=task.policy["kind"],
        labels=task.labels,
        size=params.size,
        background=params.background,
        thresholds=found.thresholds,
        calibration={
            **dataclasses.asdict(found.calibration),
            "threshold_objective": params.threshold_objective,
            "target_rate": None if params.threshold_objective == "f1" else params.target_rate,
        },
        policy=task.policy,
        data=_data(),
        code=provenance.revision(provenance.sources()),
        params=dataclasses.asdict(params),
        metrics=found.metrics,
        precision=served.precision,
        auroc=served.auroc,
    ).write(paths.SIDECAR)
    with replacing(paths.CHECKPOINT) as aside:
        fitting.save(checkpoint, aside)
    with replacing(paths.TRAIN_METRICS) as aside:
        metrics: dict[str, Any] = {"val": found.metrics, "epochs": epochs}
        if served.drop is not None:
            metrics["int8"] = {"auroc": served.auroc["int8"], "drop": served.drop}
        aside.write_text(json.dumps(metrics, indent=2) + "\n")
    fitting.curves(folder, paths.TRAIN_PLOTS)
    scores = "  ".join(f"{name} {value:.3f}" for name, value in found.metrics.items())
    log.info("validation after %d epochs: %s", epochs, scores)


if __name__ == "__main__":
    run(main)
