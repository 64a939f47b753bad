"""The exported model, test split, shards -> data/test: metrics, plots, predictions, issues, report; model card."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow.parquet as pq

from stages.config.test import Test
from stages.evaluation import corruptions, curves, folds, gallery, label_issues, parity, report, slices
from stages.evaluation.corruptions import CorruptionResult
from stages.evaluation.folds import RECALL_AT, Row
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Predictions, measure_predictions, predict
from stages.evaluation.slices import Slice
from stages.inference.decoding import UNCAPPED
from stages.inference.predictor import Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import paths
from stages.workspace.errors import run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)

LOGGED = ("auroc", "average_precision", RECALL_AT, "precision", "recall")


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
    split, runs = report.read_split_summary(), folds.read()
    # Everything is measured before anything is written: an error leaves no partial outs.
    evaluation = evaluate(predictor, params)
    data = describe(evaluation, predictor, params, split, runs)
    write_tables(evaluation, predictor.sidecar)
    write_plots(evaluation, data)
    write_reports(data)
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
        slices.measure(predictions, sidecar, paths.SHARDS, params.confidence),
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


def describe(
    evaluation: Evaluation, predictor: Predictor, params: Test, split: dict[str, Any], runs: list[Row]
) -> report.ReportData:
    """Draw the report's charts, choose its pictures, and say what is known of the data, the training and other runs."""
    predictions, sidecar = evaluation.predictions, predictor.sidecar
    return report.ReportData(
        evaluation.metrics,
        params.confidence,
        sidecar,
        predictions,
        report.panels(predictions, sidecar, evaluation.metrics, params),
        evaluation.slices,
        evaluation.corruptions,
        gallery.build(
            predictions, evaluation.issues, paths.SHARDS, predictor, params.worst_count, params.saliency_count
        ),
        len(evaluation.issues),
        split,
        report.training_charts(),
        report.other_folds(predictions, sidecar, split, runs),
    )


def write_plots(evaluation: Evaluation, data: report.ReportData) -> None:
    """Write the tables of `dvc plots`, with curves averaged over labels."""
    predictions, sidecar = evaluation.predictions, data.sidecar
    columns = [
        (predictions.scores[:, column], predictions.truth[:, column])
        for column, _ in enumerate(decided(sidecar.kind, sidecar.labels))
    ]
    label_curves = {
        "roc": (curves.ROC, [curves.roc(*label) for label in columns]),
        "precision_recall": (curves.PRECISION_RECALL, [curves.precision_recall(*label) for label in columns]),
        "reliability": (curves.RELIABILITY, [curves.reliability(panel.bins) for panel in data.panels]),
    }
    # A plot of an earlier version, or of another policy, must not stay beside the new ones.
    shutil.rmtree(paths.TEST_PLOTS, ignore_errors=True)
    tables: dict[str, tuple[Any, Any]] = {
        **{name: (header, curves.averaged(lines).tolist()) for name, (header, lines) in label_curves.items()},
        "confusion": (
            ("actual", "verdict"),
            zip(predictions.true_verdicts(sidecar), predictions.verdicts, strict=True),
        ),
        "slices": (slices.COLUMNS, map(astuple, evaluation.slices)),
        "corruptions": (corruptions.COLUMNS, map(astuple, evaluation.corruptions)),
    }
    for name, (header, rows) in tables.items():
        curves.write_table(paths.TEST_PLOTS / f"{name}.csv", header, rows)


def write_reports(data: report.ReportData) -> None:
    """Write `report.html` and the model card."""
    with replacing(paths.REPORT) as aside:
        aside.write_text(report.render_report(data), encoding="utf-8")
    with replacing(paths.MODEL_CARD) as aside:
        aside.write_text(report.render_model_card(data), encoding="utf-8")


if __name__ == "__main__":
    run(main)
