"""Chooses the graph that is served: with 8-bit integers (int8) if that costs little accuracy, else with floats (fp32).

An int8 graph is smaller, and faster on a CPU. A frozen stem whose outputs are pooled is quantised before the training,
so its heads have learnt from the very features that are served. Any other network is quantised after the training, and
what that costs is measured on the validation pictures.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Task
from stages.inference.sidecar import GraphPrecision
from stages.training import features
from stages.training.export import FEATURES, SCORES, chain, check_parity, export
from stages.training.metrics import DIGITS
from stages.training.networks import ExportModel
from stages.training.quantisation import UnquantisableError, quantise
from stages.training.stem import FrozenStem, PooledStem
from stages.training.validation import Validation, validate_scores
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
    """Precision -> validation AUROC, of each graph that was validated."""

    @property
    def drop(self) -> float | None:
        """Validation AUROC that int8 costs, whether it is served or not; None if only one graph was validated."""
        return round(self.auroc["fp32"] - self.auroc["int8"], DIGITS) if len(self.auroc) > 1 else None


def select_model(
    model: ExportModel,
    int8_stem: Path | None,
    validation: Validation,
    task: Task,
    pictures: Rows,
    rows: Rows,
    params: Train,
    folder: Path,
) -> SelectedModel:
    """Export the model in fp32 and, if it may be, in int8, and write the better choice to `paths.MODEL`.

    Both graphs are kept in `paths.GRAPHS`.

    Args:
        model: the trained model, calibrated.
        int8_stem: the graph whose outputs it was trained on, if that was an int8 one.
        validation: of its trained part.
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
    if int8_stem is not None:
        _write([int8_stem, *graphs[1:]], paths.GRAPHS / "int8.onnx", task.labels)
        selected = SelectedModel("int8", validation, {"int8": validation.metrics["auroc"]})
    elif params.int8_drop and not isinstance(model.stem, PooledStem):
        selected = _quantised(validation, task, pictures, params)
    else:
        selected = SelectedModel("fp32", validation, {"fp32": validation.metrics["auroc"]})
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


def _quantised(fp32: Validation, task: Task, pictures: Rows, params: Train) -> SelectedModel:
    """Quantise the whole fp32 graph after its training, and select int8 if it costs less than `int8_drop`.

    The int8 graph has thresholds and metrics of its own, and the fp32 graph's calibration.
    """
    graph = paths.GRAPHS / "int8.onnx"
    measured = task.train.ids[np.linspace(0, len(task.train.ids) - 1, features.MEASURED).astype(int)]
    try:
        quantise(paths.GRAPHS / "fp32.onnx", graph, pictures.take(np.unique(measured)))
    except UnquantisableError as error:
        log.info("the model is served in fp32: %s", error)
        return SelectedModel("fp32", fp32, {"fp32": fp32.metrics["auroc"]})
    ids = task.val.ids
    batches = (pictures.take(ids[start : start + features.BATCH]) for start in range(0, len(ids), features.BATCH))
    scores = features.outputs(graph, batches, params.threads)
    return _better(fp32, validate_scores(scores, fp32.calibration, task, params), params.int8_drop or 0)


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
