"""Which of a training's graphs is served: that of 8-bit integers, where it costs next to nothing, or the fp32 one."""

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
from stages.training.batches import Data
from stages.training.export import FEATURES, SCORES, chained, check_parity, export
from stages.training.features import Streamed
from stages.training.metrics import DIGITS
from stages.training.networks import ExportModel
from stages.training.quantisation import quantise
from stages.training.stem import FrozenStem
from stages.training.validation import Assessment, assess, measured
from stages.workspace import paths
from stages.workspace.files import replacing

log = logging.getLogger(__name__)
PARITY = 32
"""Validation pictures whose scores are compared between torch and ONNX Runtime."""


@dataclass(frozen=True)
class Served:
    """What the side-car tells of the graph that is served."""

    precision: GraphPrecision
    assessment: Assessment
    auroc: dict[str, float]
    """Precision -> validation AUROC, of each graph that was tried."""

    @property
    def drop(self) -> float | None:
        """Validation AUROC that int8 costs, served or not; None if it was not tried."""
        return round(self.auroc["fp32"] - self.auroc["int8"], DIGITS) if "int8" in self.auroc else None


def serve(
    model: ExportModel, found: Assessment, task: Task, pictures: Rows, rows: Rows, params: Train, folder: Path
) -> Served:
    """Export the model in fp32, quantise it, compare, and put the better choice in the model's place.

    The int8 graph's thresholds and metrics are those of its own scores; its calibration is the fp32 graph's.

    Args:
        model: whose trained part is judged by `found`.
        found: in fp32.
        task: whose training pictures the int8 graph is calibrated with, and whose validation pictures decide.
        pictures: uint8 rows [size, size, 3].
        rows: what the trained part takes.
        params: `int8_drop` decides.
        folder: for what is only needed meanwhile.
    """
    (paths.GRAPHS / "int8.onnx").unlink(missing_ok=True)
    graphs = _exported(model, pictures.shape, rows.shape, folder)
    _write(graphs, paths.GRAPHS / "fp32.onnx", task.labels)
    check_parity(model, paths.GRAPHS / "fp32.onnx", pictures.take(task.val.ids[:PARITY]))
    served = Served("fp32", found, {"fp32": found.metrics["auroc"]})
    if params.int8_drop and (stream := _quantised(graphs, task, pictures, params, folder)):
        if task.heads > 1:
            small = assess(model.network, task, Data(task, stream, params), params, found.calibration)
        else:
            small = measured(stream.take(task.val.ids), found.calibration, task, params)
        served = _better(found, small, params.int8_drop)
    with replacing(paths.MODEL) as aside:
        shutil.copyfile(paths.GRAPHS / f"{served.precision}.onnx", aside)
    return served


def _exported(model: ExportModel, picture: tuple[int, ...], row: tuple[int, ...], folder: Path) -> list[Path]:
    """Graphs whose chain goes from a picture's pixels to scores: the frozen part's, if there is one, and the rest's."""
    if isinstance(model.stem, FrozenStem):
        head = folder / "head.onnx"
        export(ExportModel(None, model.network, model.kind, model.calibration), head, row, (FEATURES, SCORES))
        return [features.graph(model.stem, picture), head]
    whole = folder / "whole.onnx"
    export(model, whole, picture)
    return [whole]


def _write(graphs: list[Path], target: Path, labels: tuple[str, ...]) -> None:
    with replacing(target) as aside:
        chained(graphs, aside, labels)


def _quantised(graphs: list[Path], task: Task, pictures: Rows, params: Train, folder: Path) -> Streamed | None:
    """Write the int8 graph; what its quantised part gives for pictures, or None if there is nothing to quantise.

    Of several members only those may judge a picture that have not learnt from it: that part is the frozen one then,
    and gives features. Of a single member it is the whole, and gives scores.
    """
    first, *rest = graphs if task.heads > 1 else [paths.GRAPHS / "fp32.onnx"]
    part = folder / "int8.onnx"
    if not quantise(first, part, pictures, task.train.ids):
        log.info("the model is served in fp32: it has no convolutions to quantise")
        return None
    _write([part, *rest], paths.GRAPHS / "int8.onnx", task.labels)
    return Streamed(part, pictures, params.threads)


def _better(found: Assessment, small: Assessment, allowed: float) -> Served:
    """The int8 graph's assessment, unless it costs as much of the AUROC as is `allowed`, or more."""
    auroc = {"fp32": found.metrics["auroc"], "int8": small.metrics["auroc"]}
    precision: GraphPrecision = "int8" if auroc["fp32"] - auroc["int8"] < allowed else "fp32"
    log.info(
        "the model is served in %s: int8 has a validation AUROC of %.4f, fp32 of %.4f, and train.int8_drop allows a "
        "drop of less than %g",
        precision,
        auroc["int8"],
        auroc["fp32"],
        allowed,
    )
    return Served(precision, small if precision == "int8" else found, auroc)
