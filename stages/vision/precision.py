"""Which of a training's graphs is served: that of 8-bit integers, where it costs next to nothing, or the fp32 one."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages import paths
from stages.params import Train
from stages.vision.assessment import Assessment, judged
from stages.vision.decoding import Ids, Rows
from stages.vision.export import PIXELS
from stages.vision.metrics import DIGITS, Floats
from stages.vision.quantisation import BATCH, quantise
from stages.vision.runtime import session
from stages.vision.sidecar import Precision
from stages.vision.targets import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What the side-car tells of the graph that is served."""

    precision: Precision
    assessment: Assessment
    auroc: dict[str, float]
    """Precision -> validation AUROC, of each graph that was tried."""

    @property
    def drop(self) -> float | None:
        """Validation AUROC that int8 costs, served or not; None if it was not tried."""
        return round(self.auroc["fp32"] - self.auroc["int8"], DIGITS) if "int8" in self.auroc else None


def serve(found: Assessment, task: Task, pictures: Rows, params: Train) -> Served:
    """Quantise the fp32 graph, compare, and put the better choice in the model's place.

    The int8 graph's thresholds and metrics are those of its own scores; its calibration is the fp32 graph's, which it
    was quantised with.

    Args:
        found: of the fp32 graph.
        task: whose training pictures the int8 graph is calibrated with, and whose validation split decides.
        pictures: uint8 rows [size, size, 3].
        params: `int8_drop` decides.
    """
    served = _tried(found, task, pictures, params)
    with paths.replacing(paths.MODEL) as aside:
        shutil.copyfile(paths.GRAPHS / f"{served.precision}.onnx", aside)
    return served


def _tried(found: Assessment, task: Task, pictures: Rows, params: Train) -> Served:
    fp32, int8 = (paths.GRAPHS / f"{precision}.onnx" for precision in ("fp32", "int8"))
    auroc = {"fp32": found.metrics["auroc"]}
    int8.unlink(missing_ok=True)
    if not params.int8_drop:
        return Served("fp32", found, auroc)
    if not quantise(fp32, int8, pictures, task.train.ids):
        log.info("the model is served in fp32: it has no convolutions to quantise")
        return Served("fp32", found, auroc)
    scores = _scores(int8, pictures, task.val.ids, params.threads)
    small = judged(scores, found.calibration, task, params)
    auroc["int8"] = small.metrics["auroc"]
    drop = auroc["fp32"] - auroc["int8"]
    precision: Precision = "int8" if drop < params.int8_drop else "fp32"
    log.info(
        "the model is served in %s: int8 has a validation AUROC of %.4f, fp32 of %.4f, and train.int8_drop allows a "
        "drop of less than %g",
        precision,
        auroc["int8"],
        auroc["fp32"],
        params.int8_drop,
    )
    return Served(precision, small if precision == "int8" else found, auroc)


def _scores(graph: Path, pictures: Rows, ids: Ids, threads: int) -> Floats:
    """A graph's scores of these pictures, [len(ids), labels]."""
    run, found = session(graph, threads), []
    with tqdm(total=len(ids), desc="int8: validation", unit="picture", disable=None) as progress:
        for start in range(0, len(ids), BATCH):
            found.append(run.run(None, {PIXELS: pictures.take(ids[start : start + BATCH])})[0])
            progress.update(len(found[-1]))
    return np.concatenate(found)
