"""Chooses the graph that is served: with 8-bit integers (int8) if that costs little accuracy, else with floats (fp32).

An int8 graph is smaller, and faster on a CPU. How much accuracy it costs depends on network and pictures, so it is
measured on the validation pictures.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Task
from stages.inference.sidecar import GraphPrecision
from stages.training import features
from stages.training.batches import DataModule
from stages.training.export import FEATURES, SCORES, chain, check_parity, export
from stages.training.features import Streamed
from stages.training.metrics import DIGITS
from stages.training.networks import ExportModel
from stages.training.quantisation import quantise
from stages.training.stem import FrozenStem
from stages.training.validation import Validation, validate, validate_scores
from stages.workspace import paths
from stages.workspace.files import replacing

log = logging.getLogger(__name__)
PARITY_COUNT = 32
"""Validation pictures whose scores are compared between torch and ONNX Runtime."""


@dataclass(frozen=True)
class SelectedModel:
    """The graph that is served, and how it did."""

    precision: GraphPrecision
    validation: Validation
    """Of the graph that is served."""
    auroc: dict[str, float]
    """Precision -> validation AUROC, of each graph that was tried."""

    @property
    def drop(self) -> float | None:
        """Validation AUROC that int8 costs, whether it is served or not; None if it was not tried."""
        return round(self.auroc["fp32"] - self.auroc["int8"], DIGITS) if "int8" in self.auroc else None


def select_model(
    model: ExportModel, validation: Validation, task: Task, pictures: Rows, rows: Rows, params: Train, folder: Path
) -> SelectedModel:
    """Export the model in fp32, quantise it to int8, compare both, and write the better choice to `paths.MODEL`.

    Both graphs are kept in `paths.GRAPHS`. The int8 graph has thresholds and metrics of its own, and the fp32 graph's
    calibration.

    Args:
        model: the trained model, calibrated.
        validation: of its trained part, in fp32.
        task: its training pictures measure the ranges of activations; its validation pictures decide.
        pictures: uint8 rows [size, size, 3].
        rows: inputs of the trained part.
        params: `int8_drop` decides; 0 or None: int8 is not tried.
        folder: for temporary files.

    Raises:
        ModelError: if the exported graph's scores are not the network's.
    """
    (paths.GRAPHS / "int8.onnx").unlink(missing_ok=True)
    graphs = _export(model, pictures.shape, rows.shape, folder)
    _write(graphs, paths.GRAPHS / "fp32.onnx", task.labels)
    check_parity(model, paths.GRAPHS / "fp32.onnx", pictures.take(task.val.ids[:PARITY_COUNT]))
    selected = SelectedModel("fp32", validation, {"fp32": validation.metrics["auroc"]})
    if params.int8_drop and (outputs := _quantise(graphs, task, pictures, params, folder)):
        if task.heads > 1:  # the outputs are features, for the heads to score
            int8 = validate(model.network, task, DataModule(task, outputs, params), params, validation.calibration)
        else:  # the outputs are scores
            int8 = validate_scores(outputs.take(task.val.ids), validation.calibration, task, params)
        selected = _better(validation, int8, params.int8_drop)
    with replacing(paths.MODEL) as aside:
        shutil.copyfile(paths.GRAPHS / f"{selected.precision}.onnx", aside)
    return selected


def _export(model: ExportModel, picture: tuple[int, ...], row: tuple[int, ...], folder: Path) -> list[Path]:
    """Graphs that in a chain go from pixels to scores: the frozen stem's, if there is one, and the trained part's."""
    if isinstance(model.stem, FrozenStem):
        head = folder / "head.onnx"
        export(ExportModel(None, model.network, model.kind, model.calibration), head, row, (FEATURES, SCORES))
        return [features.graph(model.stem, picture), head]
    whole = folder / "whole.onnx"
    export(model, whole, picture)
    return [whole]


def _write(graphs: list[Path], target: Path, labels: tuple[str, ...]) -> None:
    with replacing(target) as aside:
        chain(graphs, aside, labels)


def _quantise(graphs: list[Path], task: Task, pictures: Rows, params: Train, folder: Path) -> Streamed | None:
    """Write the int8 graph, and return the outputs of its quantised part for pictures; None if there is no such part.

    An ensemble is validated with out-of-fold scores, but its whole graph returns the mean of all heads. So only the
    stem is quantised, and its outputs are features for the heads. With one head the whole graph is quantised, and its
    outputs are scores.
    """
    first, *rest = graphs if task.heads > 1 else [paths.GRAPHS / "fp32.onnx"]
    part = folder / "int8.onnx"
    if not quantise(first, part, pictures, task.train.ids):
        log.info("the model is served in fp32: it has no convolutions to quantise")
        return None
    _write([part, *rest], paths.GRAPHS / "int8.onnx", task.labels)
    return Streamed(part, pictures, params.threads)


def _better(fp32: Validation, int8: Validation, allowed_drop: float) -> SelectedModel:
    """Select int8 if its AUROC is less than `allowed_drop` below that of fp32."""
    auroc = {"fp32": fp32.metrics["auroc"], "int8": int8.metrics["auroc"]}
    precision: GraphPrecision = "int8" if auroc["fp32"] - auroc["int8"] < allowed_drop else "fp32"
    log.info(
        "the model is served in %s: int8 has a validation AUROC of %.4f, fp32 of %.4f, and train.int8_drop allows a "
        "drop of less than %g",
        precision,
        auroc["int8"],
        auroc["fp32"],
        allowed_drop,
    )
    return SelectedModel(precision, int8 if precision == "int8" else fp32, auroc)
