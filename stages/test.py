"""models/moderator.onnx, the test split, shards -> data/test: metrics, plots, predictions, report; models/README.md."""

from __future__ import annotations

import json
import logging
import shutil
from typing import Any

import torch

from stages import paths
from stages.errors import run
from stages.params import Test, load
from stages.vision import curves, evaluation, report
from stages.vision.curves import PRECISION_RECALL, ROC, Curve
from stages.vision.decoding import CAPS
from stages.vision.evaluation import Predictions
from stages.vision.predictor import Predictor
from stages.vision.sidecar import Sidecar, decided

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Test)
    torch.set_num_threads(params.threads)
    predictor = Predictor(paths.MODEL, paths.SIDECAR, params.threads, CAPS)
    predictions = evaluation.predict(paths.SPLITS["test"], paths.SHARDS, predictor)
    metrics = evaluation.evaluate(predictions, predictor.sidecar, params)
    write_predictions(predictions, predictor.sidecar, metrics)
    plots = write_plots(predictions, predictor.sidecar)
    write_reports(predictions, predictor.sidecar, metrics, plots, params)
    said = (f"{name} {metrics[name]:.3f}" for name in ("auroc", "average_precision", "f1", "precision", "recall"))
    log.info("test: %s", "  ".join(said))


def write_predictions(predictions: Predictions, sidecar: Sidecar, metrics: dict[str, Any]) -> None:
    with paths.replacing(paths.PREDICTIONS) as aside:
        evaluation.write_predictions(predictions, sidecar, aside)
    with paths.replacing(paths.TEST_METRICS) as aside:
        aside.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_plots(predictions: Predictions, sidecar: Sidecar) -> list[str]:
    """Write tables for `dvc plots`, averaged over labels -> each label's curves as SVG images."""
    shutil.rmtree(paths.TEST_PLOTS, ignore_errors=True)
    found: dict[str, dict[str, Curve]] = {"roc": {}, "precision_recall": {}}
    for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        scores, truth = predictions.scores[:, place], predictions.truth[:, place]
        found["roc"][label] = curves.roc(scores, truth)
        found["precision_recall"][label] = curves.precision_recall(scores, truth)
    for name, columns in (("roc", ROC), ("precision_recall", PRECISION_RECALL)):
        average = curves.averaged(list(found[name].values()))
        curves.write_table(paths.TEST_PLOTS / f"{name}.csv", columns, average.tolist())
    pairs = zip(predictions.actual(sidecar), predictions.verdicts, strict=True)
    curves.write_table(paths.TEST_PLOTS / "confusion.csv", ("actual", "verdict"), pairs)
    histograms = [
        curves.drawn_scores(label, predictions.scores[:, place], predictions.truth[:, place], sidecar.thresholds[label])
        for place, label in enumerate(found["roc"])
    ]
    return [
        curves.drawn("ROC", ROC, found["roc"], diagonal=True),
        curves.drawn("Precision and recall", PRECISION_RECALL, found["precision_recall"]),
        *histograms,
    ]


def write_reports(
    predictions: Predictions, sidecar: Sidecar, metrics: dict[str, Any], plots: list[str], params: Test
) -> None:
    worst = evaluation.mistakes(predictions, sidecar, params.worst)
    pictures = report.shown(worst, predictions, paths.SHARDS, sidecar.background)
    with paths.replacing(paths.REPORT) as aside:
        aside.write_text(
            report.page(metrics, params.confidence, sidecar, predictions, plots, pictures), encoding="utf-8"
        )
    with paths.replacing(paths.MODEL_CARD) as aside:
        aside.write_text(report.card(metrics, params.confidence, sidecar, predictions), encoding="utf-8")


if __name__ == "__main__":
    run(main)
