"""Whether torch, the fp32 graph and the int8 graph give the same scores and verdicts on test pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from stages.config.test import Test
from stages.evaluation.predictions import Predictions, balanced_sample, batches
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
from stages.workspace.progress import Progress

HOW_TO_MATCH = "restore the files of one training with `dvc checkout`, or train again with `dvc repro -f train`"


def compare(predictions: Predictions, sidecar: Sidecar, folder: Path, params: Test) -> dict[str, Any]:
    """Score a sample of the split by the torch network and by each graph, and compare.

    Args:
        predictions: of the served graph, which does not run again.
        sidecar: of the served graph.
        folder: of shards.
        params: `parity_count`, `threads`.

    Returns:
        `pictures`, up to `parity_count`; of torch and of each graph `auroc`, and of each graph `largest_difference` and
        `mean_difference` from torch's scores and `different_verdicts`, a share of the pictures.

    Raises:
        ModelError: if checkpoint, graphs, side-car and model are not from one training.
    """
    torch.set_num_threads(params.threads)
    network = load_network(paths.CHECKPOINT, sidecar)
    _check_served(sidecar)
    labels = decided(sidecar.kind, sidecar.labels)
    # Each label contributes positives and negatives, so its share of the count is halved.
    sample = balanced_sample(predictions, sidecar, max(1, params.parity_count // (2 * len(labels))))
    scores = {"torch": np.empty((len(sample), len(sidecar.labels)), np.float32)}
    graphs = {}
    for name in get_args(GraphPrecision):
        if name == sidecar.precision:
            scores[name] = predictions.scores[sample]
        elif (file := paths.GRAPHS / f"{name}.onnx").exists():
            graphs[name], scores[name] = Predictor(file, paths.SIDECAR, params.threads), np.empty_like(scores["torch"])
    start = 0
    ids = set(predictions.table["image_id"].to_numpy()[sample].tolist())
    with Progress("parity", len(sample)) as progress:
        for batch in batches(shards.pictures(folder, ids), BATCH):
            squares = np.stack([pixels(data, sidecar.size, sidecar.background, UNCAPPED) for _, data in batch])
            rows = slice(start, start + len(batch))
            start = rows.stop
            with torch.no_grad():
                scores["torch"][rows] = network(torch.from_numpy(squares)).numpy()
            for name, graph in graphs.items():
                scores[name][rows] = graph.score(squares)
            progress.update(len(batch))
    return _differences(scores, predictions.truth[sample], sidecar)


def _differences(scores: dict[str, Floats], truth: Flags, sidecar: Sidecar) -> dict[str, Any]:
    """Each runtime's AUROC, averaged over labels, and how the others differ from the first."""
    thresholds = [sidecar.thresholds[label] for label in decided(sidecar.kind, sidecar.labels)]
    verdicts = {
        name: [verdict(dict(zip(sidecar.labels, row.tolist(), strict=True)), sidecar) for row in rows]
        for name, rows in scores.items()
    }
    first = next(iter(scores))  # the reference: torch
    results: dict[str, Any] = {"pictures": len(truth)}
    for name, rows in scores.items():
        auroc = metrics.averaged(metrics.of_labels(rows, truth, thresholds))["auroc"]
        results[name] = {"auroc": round(auroc, DIGITS)}
        if name != first:
            differences = np.abs(rows - scores[first])
            different = np.mean([ours != theirs for ours, theirs in zip(verdicts[name], verdicts[first], strict=True)])
            results[name] |= {
                "largest_difference": round(float(differences.max()), DIGITS),
                "mean_difference": round(float(differences.mean()), DIGITS),
                "different_verdicts": round(float(different), DIGITS),
            }
    return results


def _check_served(sidecar: Sidecar) -> None:
    graph = paths.GRAPHS / f"{sidecar.precision}.onnx"
    if not graph.is_file() or file_hash(graph) != file_hash(paths.MODEL):
        raise ModelError(f"{paths.MODEL} differs from {graph}, which its side-car names: {HOW_TO_MATCH}")


def load_network(path: Path, sidecar: Sidecar) -> nn.Module:
    """Load a checkpoint as the network that was exported: uint8 pixels -> scores.

    Raises:
        ModelError: if the file is missing or unreadable, or is from another training than the side-car.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        labels, features, state = (checkpoint[key] for key in ("labels", "features", "state_dict"))
        architecture = Architecture(**checkpoint["architecture"])
    except FileNotFoundError:
        raise ModelError(
            f"no checkpoint {path}; get it with `dvc checkout` or `dvc pull`, train one with `dvc repro train`, or "
            "skip the comparison with test.parity_count=0"
        ) from None
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise ModelError(f"the checkpoint {path} cannot be read; {HOW_TO_MATCH}") from error
    if labels != list(sidecar.labels):
        raise ModelError(
            f"{path} was trained for the labels {', '.join(labels)}, the side-car {paths.SIDECAR} names "
            f"{', '.join(sidecar.labels)}: {HOW_TO_MATCH}"
        )
    # With weights=none the frozen stem is random, and the seed gives the one that was trained with.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(sidecar.params["seed"])
        stem = networks.frozen_stem(architecture)
    network = networks.trainable_part(architecture, features)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {paths.SIDECAR}: {HOW_TO_MATCH}") from error
    calibration = Calibration(sidecar.calibration["temperature"], tuple(sidecar.calibration["bias"]))
    return networks.ExportModel(stem, network, sidecar.kind, calibration).eval()
