"""The exported model, test split, shards -> data/test: metrics, plots, predictions, issues, report; model card."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow.parquet as pq

from stages.config.test import Test
from stages.evaluation import corruptions, curves, label_issues, parity, report, slices
from stages.evaluation.corruptions import CorruptionResult
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Predictions, measure_predictions, predict, worst_mistakes
from stages.evaluation.slices import Slice
from stages.inference.decoding import UNCAPPED
from stages.inference.predictor import Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import paths
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)

CURVES = {
    "roc": (curves.roc, curves.ROC),
    "precision_recall": (curves.precision_recall, curves.PRECISION_RECALL),
    "reliability": (curves.reliability, curves.RELIABILITY),
}
"""Name of the plot -> its function and columns."""
LOGGED = ("auroc", "average_precision", "f1", "precision", "recall")


@dataclass(frozen=True)
class Evaluation:
    """Everything that is measured on the test split."""

    predictions: Predictions
    metrics: dict[str, Any]
    slices: list[Slice]
    corruptions: list[CorruptionResult]
    issues: list[Issue]


def main() -> None:
    params = load(Test)
    predictor = Predictor(paths.MODEL, paths.SIDECAR, params.threads, UNCAPPED)
    # Everything is measured before anything is written: an error leaves no partial outs.
    evaluation = evaluate(predictor, params)
    write_tables(evaluation, predictor.sidecar)
    plots = write_plots(evaluation, predictor.sidecar)
    write_reports(evaluation, predictor, plots, params)
    log.info("test: %s", "  ".join(f"{name} {evaluation.metrics[name]:.3f}" for name in LOGGED))


def evaluate(predictor: Predictor, params: Test) -> Evaluation:
    """Judge the test split and measure metrics, corruptions, parity, slices and label issues."""
    sidecar = predictor.sidecar
    predictions = predict(paths.SPLITS["test"], paths.SHARDS, predictor)
    metrics = measure_predictions(predictions, sidecar, params)
    results = corruptions.measure(predictions, predictor, paths.SHARDS, params.corruption_count, params.threads)
    metrics["recall_drop"] = corruptions.recall_drops(results)
    if params.parity_count:  # the only part that needs the checkpoint
        metrics["parity"] = parity.compare(predictions, sidecar, paths.SHARDS, params)
    return Evaluation(
        predictions,
        metrics,
        slices.measure(predictions, sidecar, paths.SHARDS),
        results,
        label_issues.find(predictions, sidecar),
    )


def write_tables(evaluation: Evaluation, sidecar: Sidecar) -> None:
    """Write `predictions.parquet`, `metrics.json` and `label_issues.csv`."""
    with replacing(paths.PREDICTIONS) as aside:
        pq.write_table(evaluation.predictions.to_table(sidecar), aside, compression="zstd")
    with replacing(paths.TEST_METRICS) as aside:
        aside.write_text(json.dumps(evaluation.metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(paths.LABEL_ISSUES) as aside:
        rows = label_issues.rows(evaluation.issues, evaluation.predictions)
        curves.write_table(aside, label_issues.COLUMNS, rows)


def write_plots(evaluation: Evaluation, sidecar: Sidecar) -> list[str]:
    """Write the tables of `dvc plots`, with curves averaged over labels.

    Returns:
        Each label's curves and histogram as SVG elements, for the report.
    """
    predictions = evaluation.predictions
    columns = {
        label: (predictions.scores[:, column], predictions.truth[:, column])
        for column, label in enumerate(decided(sidecar.kind, sidecar.labels))
    }
    label_curves = {
        name: {label: curve(scores, truth) for label, (scores, truth) in columns.items()}
        for name, (curve, _) in CURVES.items()
    }
    # A plot of an earlier version, or of another policy, must not stay beside the new ones.
    shutil.rmtree(paths.TEST_PLOTS, ignore_errors=True)
    tables: dict[str, tuple[Any, Any]] = {
        **{
            name: (header, curves.averaged(list(label_curves[name].values())).tolist())
            for name, (_, header) in CURVES.items()
        },
        "confusion": (
            ("actual", "verdict"),
            zip(predictions.true_verdicts(sidecar), predictions.verdicts, strict=True),
        ),
        "slices": (slices.COLUMNS, map(astuple, evaluation.slices)),
        "corruptions": (corruptions.COLUMNS, map(astuple, evaluation.corruptions)),
    }
    for name, (header, rows) in tables.items():
        curves.write_table(paths.TEST_PLOTS / f"{name}.csv", header, rows)
    return [
        curves.curves_svg("ROC", curves.ROC, label_curves["roc"], diagonal="chance"),
        curves.curves_svg("Precision and recall", curves.PRECISION_RECALL, label_curves["precision_recall"]),
        curves.curves_svg("Reliability", curves.RELIABILITY, label_curves["reliability"], diagonal="calibrated"),
        *(
            curves.histogram_svg(label, scores, truth, sidecar.thresholds[label])
            for label, (scores, truth) in columns.items()
        ),
    ]


def write_reports(evaluation: Evaluation, predictor: Predictor, plots: list[str], params: Test) -> None:
    """Write `report.html` and the model card."""
    predictions, sidecar = evaluation.predictions, predictor.sidecar
    mistakes = worst_mistakes(predictions, sidecar, params.worst_count)
    issues = evaluation.issues[: params.worst_count]
    data = report.ReportData(
        evaluation.metrics,
        params.confidence,
        sidecar,
        predictions,
        plots,
        evaluation.slices,
        evaluation.corruptions,
        report.mistake_gallery(mistakes, predictions, paths.SHARDS, predictor, params.saliency_count),
        report.issue_gallery(issues, predictions, paths.SHARDS, predictor),
        len(evaluation.issues),
    )
    with replacing(paths.REPORT) as aside:
        aside.write_text(report.render_report(data), encoding="utf-8")
    with replacing(paths.MODEL_CARD) as aside:
        aside.write_text(report.render_model_card(data), encoding="utf-8")


if __name__ == "__main__":
    run(main)
