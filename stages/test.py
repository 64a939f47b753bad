"""models/moderator.onnx, test split, shards -> data/test: metrics, plots, predictions, issues, report; model card."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import astuple, dataclass
from typing import Any

from stages.config.test import Test
from stages.evaluation import curves, label_issues, parity, report, robustness, slices
from stages.evaluation.curves import PRECISION_RECALL, RELIABILITY, ROC, Curve
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Predictions, evaluate, predict
from stages.evaluation.predictions import mistakes as worst_mistakes
from stages.evaluation.predictions import write_predictions as write_predictions_table
from stages.evaluation.robustness import Robustness
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
    "roc": (curves.roc, ROC),
    "precision_recall": (curves.precision_recall, PRECISION_RECALL),
    "reliability": (curves.reliability, RELIABILITY),
}


@dataclass(frozen=True)
class Findings:
    """Everything that is measured."""

    predictions: Predictions
    metrics: dict[str, Any]
    slices: list[Slice]
    changes: list[Robustness]
    issues: list[Issue]


def main() -> None:
    params = load(Test)
    predictor = Predictor(paths.MODEL, paths.SIDECAR, params.threads, UNCAPPED)
    found = measure(predictor, params)
    write_predictions(found, predictor.sidecar)
    plots = write_plots(found, predictor.sidecar)
    write_reports(found, predictor, plots, params)
    said = (f"{name} {found.metrics[name]:.3f}" for name in ("auroc", "average_precision", "f1", "precision", "recall"))
    log.info("test: %s", "  ".join(said))


def measure(predictor: Predictor, params: Test) -> Findings:
    """Judge the test split, then its slices, its changed pictures, its labels."""
    sidecar = predictor.sidecar
    predictions = predict(paths.SPLITS["test"], paths.SHARDS, predictor)
    metrics = evaluate(predictions, sidecar, params)
    changes = robustness.tried(predictions, predictor, paths.SHARDS, params.corruption_count, params.threads)
    metrics["recall_drop"] = robustness.drops(changes)
    if params.parity_count:
        metrics["parity"] = parity.compared(predictions, sidecar, paths.SHARDS, params)
    return Findings(
        predictions,
        metrics,
        slices.sliced(predictions, sidecar, paths.SHARDS),
        changes,
        label_issues.issues(predictions, sidecar),
    )


def write_predictions(found: Findings, sidecar: Sidecar) -> None:
    with replacing(paths.PREDICTIONS) as aside:
        write_predictions_table(found.predictions, sidecar, aside)
    with replacing(paths.TEST_METRICS) as aside:
        aside.write_text(json.dumps(found.metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(paths.LABEL_ISSUES) as aside:
        curves.write_table(aside, label_issues.COLUMNS, label_issues.rows(found.issues, found.predictions))


def write_plots(found: Findings, sidecar: Sidecar) -> list[str]:
    """Write tables for `dvc plots`, averaged over labels -> each label's curves as SVG images."""
    shutil.rmtree(paths.TEST_PLOTS, ignore_errors=True)
    drawn: dict[str, dict[str, Curve]] = {name: {} for name in CURVES}
    predictions = found.predictions
    for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        scores, truth = predictions.scores[:, place], predictions.truth[:, place]
        for name, (curve, _) in CURVES.items():
            drawn[name][label] = curve(scores, truth)
    for name, (_, columns) in CURVES.items():
        average = curves.averaged(list(drawn[name].values()))
        curves.write_table(paths.TEST_PLOTS / f"{name}.csv", columns, average.tolist())
    pairs = zip(predictions.actual(sidecar), predictions.verdicts, strict=True)
    curves.write_table(paths.TEST_PLOTS / "confusion.csv", ("actual", "verdict"), pairs)
    curves.write_table(paths.TEST_PLOTS / "slices.csv", slices.COLUMNS, map(astuple, found.slices))
    curves.write_table(paths.TEST_PLOTS / "robustness.csv", robustness.COLUMNS, map(astuple, found.changes))
    histograms = [
        curves.drawn_scores(label, predictions.scores[:, place], predictions.truth[:, place], sidecar.thresholds[label])
        for place, label in enumerate(decided(sidecar.kind, sidecar.labels))
    ]
    return [
        curves.drawn("ROC", ROC, drawn["roc"], diagonal="chance"),
        curves.drawn("Precision and recall", PRECISION_RECALL, drawn["precision_recall"]),
        curves.drawn("Reliability", RELIABILITY, drawn["reliability"], diagonal="as it should be"),
        *histograms,
    ]


def write_reports(found: Findings, predictor: Predictor, plots: list[str], params: Test) -> None:
    predictions, sidecar = found.predictions, predictor.sidecar
    mistakes = worst_mistakes(predictions, sidecar, params.worst_count)
    described = report.Described(
        found.metrics,
        params.confidence,
        sidecar,
        predictions,
        plots,
        found.slices,
        found.changes,
        report.mistakes(mistakes, predictions, paths.SHARDS, predictor, params.saliency_count),
        report.issues(found.issues[: params.worst_count], predictions, paths.SHARDS, predictor),
        len(found.issues),
    )
    with replacing(paths.REPORT) as aside:
        aside.write_text(report.page(described), encoding="utf-8")
    with replacing(paths.MODEL_CARD) as aside:
        aside.write_text(report.card(described), encoding="utf-8")


if __name__ == "__main__":
    run(main)
