"""Whether a model's forms agree on the test split: the network in torch, its fp32 graph, its int8 graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from stages.config.test import Test
from stages.evaluation.predictions import Predictions, batches
from stages.evaluation.robustness import sample
from stages.inference.decoding import UNCAPPED, pixels
from stages.inference.predictor import BATCH, Predictor
from stages.inference.sidecar import GraphPrecision, Sidecar, decided, verdict
from stages.training import metrics, networks
from stages.training.calibration import Calibration
from stages.training.metrics import DIGITS, Flags, Floats
from stages.training.networks import Architecture
from stages.workspace import paths, shards
from stages.workspace.cache import file_hash
from stages.workspace.errors import ModelError

TOGETHER = "get all that one training made with `dvc checkout`, or train anew with `dvc repro -f train`"


def compared(predictions: Predictions, sidecar: Sidecar, folder: Path, params: Test) -> dict[str, Any]:
    """Score the split's pictures by each graph, and up to `params.parity_count` of them by the network in torch.

    Args:
        predictions: those of the served graph, which is not run again.
        sidecar: of the served graph.
        folder: of shards.
        params: `parity_count`, `threads`.

    Returns:
        `sample`: of the pictures that torch has seen, for torch and each graph `auroc`, and for each graph
        `largest_difference` and `mean_difference` of a score from torch's, and `other_verdicts`, the share of pictures
        judged otherwise. `split`: the same of all pictures, int8 against fp32.

    Raises:
        ModelError: if checkpoint, graphs, side-car and model are not of one training.
    """
    torch.set_num_threads(params.threads)
    network = rebuilt(paths.CHECKPOINT, sidecar)
    forms = [form for form in get_args(GraphPrecision) if form == sidecar.precision or form in sidecar.auroc]
    _check_served(sidecar)
    graphs = {
        form: Predictor(paths.GRAPHS / f"{form}.onnx", paths.SIDECAR, params.threads)
        for form in forms
        if form != sidecar.precision
    }
    ruled = decided(sidecar.kind, sidecar.labels)
    chosen = sample(predictions, sidecar, max(1, params.parity_count // (2 * len(ruled))))
    scores = {form: np.empty_like(predictions.scores) for form in ("torch", *graphs)}
    ids = predictions.table["image_id"].to_pylist()
    start = 0
    with tqdm(total=len(ids), desc="parity", unit="picture", disable=None) as progress:
        for batch in batches(shards.pictures(folder, set(ids)), BATCH):
            squares = np.stack([pixels(data, sidecar.size, sidecar.background, UNCAPPED) for _, data in batch])
            places = np.arange(start, start + len(batch))
            for form, graph in graphs.items():
                scores[form][places] = graph.score(squares)
            mine = np.isin(places, chosen)
            if mine.any():
                with torch.no_grad():
                    scores["torch"][places[mine]] = network(torch.from_numpy(squares[mine])).numpy()
            start += len(batch)
            progress.update(len(batch))
    scores[sidecar.precision] = predictions.scores
    seen = {form: scores[form][chosen] for form in ("torch", *forms)}
    return {
        "sample": _told(seen, predictions.truth[chosen], sidecar),
        "split": _told({form: scores[form] for form in forms}, predictions.truth, sidecar),
    }


def _told(scores: dict[str, Floats], truth: Flags, sidecar: Sidecar) -> dict[str, Any]:
    """Each form's AUROC, averaged over labels, and how the others differ from the first."""
    thresholds = [sidecar.thresholds[label] for label in decided(sidecar.kind, sidecar.labels)]
    verdicts = {
        form: [verdict(dict(zip(sidecar.labels, row.tolist(), strict=True)), sidecar) for row in rows]
        for form, rows in scores.items()
    }
    first = next(iter(scores))
    told: dict[str, Any] = {"pictures": len(truth)}
    for form, rows in scores.items():
        auroc = metrics.averaged(metrics.of_labels(rows, truth, thresholds))["auroc"]
        told[form] = {"auroc": round(auroc, DIGITS)}
        if form != first:
            differences = np.abs(rows - scores[first])
            others = np.mean([mine != theirs for mine, theirs in zip(verdicts[form], verdicts[first], strict=True)])
            told[form] |= {
                "largest_difference": round(float(differences.max()), DIGITS),
                "mean_difference": round(float(differences.mean()), DIGITS),
                "other_verdicts": round(float(others), DIGITS),
            }
    return told


def _check_served(sidecar: Sidecar) -> None:
    graph = paths.GRAPHS / f"{sidecar.precision}.onnx"
    if not graph.is_file() or file_hash(graph) != file_hash(paths.MODEL):
        raise ModelError(f"{paths.MODEL} is not the {graph} that its side-car tells of: {TOGETHER}")


def rebuilt(path: Path, sidecar: Sidecar) -> nn.Module:
    """The network whose weights a checkpoint holds, as it was exported: pixels -> scores.

    Raises:
        ModelError: if there is none, it cannot be read, or it is of another training than the side-car.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        labels, features, state = (checkpoint[key] for key in ("labels", "features", "state_dict"))
        architecture = Architecture(**checkpoint["architecture"])
    except FileNotFoundError:
        raise ModelError(
            f"no checkpoint {path}; get it with `dvc checkout` or `dvc pull`, make one with `dvc repro train`, or set "
            "test.parity_count=0 to compare nothing"
        ) from None
    except Exception as error:  # whatever a broken file makes the reader raise
        raise ModelError(f"{path} is no checkpoint that can be read; {TOGETHER}") from error
    if labels != list(sidecar.labels):
        raise ModelError(
            f"{path} was trained for the labels {', '.join(labels)}, the side-car {paths.SIDECAR} names "
            f"{', '.join(sidecar.labels)}: {TOGETHER}"
        )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(sidecar.params["seed"])  # with weights=none the frozen stem is what the seed makes it
        stem = networks.frozen_stem(architecture)
    network = networks.trainable_part(architecture, features)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} holds another network than {paths.SIDECAR} tells of: {TOGETHER}") from error
    fitted = Calibration(sidecar.calibration["temperature"], tuple(sidecar.calibration["bias"]))
    return networks.ExportModel(stem, network, sidecar.kind, fitted).eval()
