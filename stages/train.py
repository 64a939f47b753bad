"""train and validation splits, shards of pictures -> an ONNX model from pixels to scores, and its side-car."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.train import Train
from stages.dataset import targets
from stages.dataset.arrays import Rows, decoded
from stages.dataset.targets import Task
from stages.inference.sidecar import Sidecar
from stages.training import features, fitting, networks, provenance
from stages.training.batches import DataModule
from stages.training.model_selection import SelectedModel, select_model
from stages.training.networks import Architecture, ExportModel
from stages.training.stem import FrozenStem, PooledStem
from stages.training.validation import validate
from stages.workspace import paths
from stages.workspace.cache import file_hash
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The network's frozen part, and what its trainable part learns from."""

    architecture: Architecture
    pictures: Rows
    """uint8 rows [size, size, 3]."""
    stem: FrozenStem | None
    int8_stem: Path | None
    """The stem's int8 graph, if that is what computed `rows`."""
    rows: Rows
    """Inputs of the trainable part: the stem's outputs, or the pictures."""
    copies: list[Rows]
    """The same of augmented copies."""


def main() -> None:
    """Train the model that `params.yaml` describes."""
    params = load(Train)
    task = read_task(params)
    fitting.seed_everything(params)
    inputs = prepare(task, params)
    network = initial_network(inputs, task)
    # A killed run resumes only if parameters, data and code are the same.
    with fitting.resume_folder(params, split_hashes(), inputs.rows.names, code_hash()) as folder:
        data = DataModule(task, inputs.rows, params, inputs.copies)
        trainer, epochs = fitting.fit(network, task, data, params, folder)
        if trainer.is_global_zero:  # of several processes, one writes the outputs
            selected = calibrate_and_export(network, inputs, task, data, params, folder)
            write_sidecar(selected, task, params)
            write_checkpoint(network, inputs, task)
            write_metrics(selected, epochs, folder)


def read_task(params: Train) -> Task:
    """The labels and tags to learn, and which head learns from which picture."""
    heads, parts = getattr(params.model, "heads", 1), getattr(params.model, "parts", "content")
    return targets.read(paths.SPLITS["train"], paths.SPLITS["val"], params.model.tag_min, heads, params.seed, parts)


def prepare(task: Task, params: Train) -> Inputs:
    """Decode the pictures, and compute the outputs of the network's frozen stem; both are cached."""
    architecture = fitting.architecture(params, task)
    pictures = decoded(paths.SHARDS, params.size, params.background, params.threads)
    stem = networks.frozen_stem(architecture)
    if stem is None:
        return Inputs(architecture, pictures, None, None, pictures, [])
    fp32 = features.graph(stem, pictures.shape)
    quantised = isinstance(stem, PooledStem) and params.int8_drop
    int8 = features.int8_graph(fp32, pictures.shape, params.threads) if quantised else None
    # Not those of the test pictures, which nothing here looks at.
    needed = np.union1d(task.train.ids, task.val.ids)
    rows = features.extracted(pictures, int8 or fp32, params.threads, wanted=needed)
    count = getattr(params.model, "augmented_copies", 0)
    copies = [features.extracted(pictures, int8 or fp32, params.threads, copy, task.train.ids) for copy in range(count)]
    return Inputs(architecture, pictures, stem, int8, rows, copies)


def initial_network(inputs: Inputs, task: Task) -> nn.Module:
    """The trainable part of the network before its training."""
    network = networks.trainable_part(inputs.architecture, inputs.rows.shape[0])
    networks.standardise(network, inputs.rows, task.train.ids)
    return network


def calibrate_and_export(
    network: nn.Module, inputs: Inputs, task: Task, data: DataModule, params: Train, folder: Path
) -> SelectedModel:
    """Validate the trained network, and write the model's graphs."""
    validation = validate(network, task, data, params)
    model = ExportModel(inputs.stem, network, task.kind, validation.calibration)
    return select_model(model, inputs.int8_stem, validation, task, inputs.pictures, inputs.rows, params, folder)


def split_hashes() -> dict[str, str]:
    """md5 of the splits that training reads, as in `dvc.lock`."""
    return {name: file_hash(paths.SPLITS[name], "md5") for name in ("train", "val")}


def code_hash() -> str:
    """Hash of the code that is running."""
    return provenance.content_hash(provenance.sources())


def write_sidecar(selected: SelectedModel, task: Task, params: Train) -> None:
    validation = selected.validation
    Sidecar(
        name=task.policy["name"],
        kind=task.policy["kind"],
        labels=task.labels,
        size=params.size,
        background=params.background,
        thresholds=validation.thresholds,
        calibration={
            **dataclasses.asdict(validation.calibration),
            "threshold_objective": params.threshold_objective,
            "target_rate": None if params.threshold_objective == "f1" else params.target_rate,
        },
        policy=task.policy,
        data=split_hashes(),
        code=provenance.revision(provenance.sources()),
        params=dataclasses.asdict(params),
        metrics=validation.metrics,
        precision=selected.precision,
        auroc=selected.auroc,
        origins=task.origins,
    ).write(paths.SIDECAR)


def write_checkpoint(network: nn.Module, inputs: Inputs, task: Task) -> None:
    with replacing(paths.CHECKPOINT) as aside:
        fitting.save_checkpoint(aside, network, inputs.architecture, inputs.rows.shape[0], task.labels)


def write_metrics(selected: SelectedModel, epochs: int, folder: Path) -> None:
    metrics: dict[str, Any] = {"val": selected.validation.metrics, "epochs": epochs}
    if selected.drop is not None:
        metrics["int8"] = {"auroc": selected.auroc["int8"], "drop": selected.drop}
    with replacing(paths.TRAIN_METRICS) as aside:
        aside.write_text(json.dumps(metrics, indent=2) + "\n")
    fitting.copy_curves(folder, paths.TRAIN_PLOTS)
    scores = "  ".join(f"{name} {value:.3f}" for name, value in selected.validation.metrics.items())
    log.info("validation after %d epochs: %s", epochs, scores)


if __name__ == "__main__":
    run(main)
