"""train and validation splits, shards of pictures -> an ONNX model from pixels to scores, and its side-car."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from stages import paths
from stages.errors import run
from stages.params import Train, load
from stages.vision import features, networks, precision, provenance, targets
from stages.vision.assessment import assess
from stages.vision.cache import file_hash
from stages.vision.dataset import Data
from stages.vision.decoding import decoded
from stages.vision.precision import Served
from stages.vision.sidecar import Sidecar
from stages.vision.targets import Task
from stages.vision.training import curves, fit, workplace

log = logging.getLogger(__name__)


def main() -> None:
    """Train what `params.yaml` asks for."""
    params = load(Train)
    torch.set_num_threads(params.threads)
    task = targets.read(paths.SPLITS["train"], paths.SPLITS["val"], params.tag_min, params.members, params.seed)
    pictures = decoded(paths.SHARDS, params.size, params.background, params.threads)
    pl.seed_everything(params.seed, verbose=False)
    front = networks.frozen(params)
    rows = features.extracted(pictures, front, params.threads) if front else pictures
    views = [features.viewed(pictures, front, params.threads, each) for each in range(params.views)] if front else []
    network = networks.trained(params, task, rows)
    with workplace(params, _data(), rows.names, provenance.digest(provenance.sources())) as folder:
        data = Data(task, rows, params, views)
        trainer, epochs = fit(network, task, data, params, folder)
        if trainer.is_global_zero:
            found = assess(network, task, data, params)
            model = networks.Moderator(front, network, task.kind, found.calibration)
            served = precision.serve(model, found, task, pictures, rows, params, folder)
            checkpoint = {
                "model": params.model,
                "labels": list(task.labels),
                "arguments": networks.arguments(params, task, rows),
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
            "goal": params.goal,
            "goal_share": None if params.goal == "f1" else params.goal_share,
        },
        policy=task.policy,
        data=_data(),
        code=provenance.revision(provenance.sources()),
        params=dataclasses.asdict(params),
        metrics=found.metrics,
        precision=served.precision,
        auroc=served.auroc,
    ).write(paths.SIDECAR)
    with paths.replacing(paths.CHECKPOINT) as aside:
        torch.save(checkpoint, aside)
    with paths.replacing(paths.TRAIN_METRICS) as aside:
        told: dict[str, Any] = {"val": found.metrics, "epochs": epochs}
        if served.drop is not None:
            told["int8"] = {"auroc": served.auroc["int8"], "drop": served.drop}
        aside.write_text(json.dumps(told, indent=2) + "\n")
    curves(folder, paths.TRAIN_PLOTS)
    said = "  ".join(f"{name} {value:.3f}" for name, value in found.metrics.items())
    log.info("validation after %d epochs: %s", epochs, said)


if __name__ == "__main__":
    run(main)
