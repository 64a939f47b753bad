"""Render the test report, a single offline HTML page, and the model card, in Markdown."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import numpy as np

from stages.config.test import Test
from stages.evaluation import charts, curves, folds, thresholds
from stages.evaluation.corruptions import CorruptionResult
from stages.evaluation.curves import Bin, Curve
from stages.evaluation.folds import RECALL_AT, Row, Summary
from stages.evaluation.gallery import Galleries
from stages.evaluation.label_metrics import RMS_CALIBRATION_ERROR
from stages.evaluation.predictions import Predictions
from stages.evaluation.slices import MIN_PICTURES, Slice
from stages.evaluation.thresholds import Steps
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import paths
from stages.workspace.errors import ModelError

TEMPLATES = Path(__file__).with_name("templates")
METRIC_NAMES = {
    RECALL_AT: "Recall at 1 % false alarms",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "false_positive_rate": "False positive rate",
    RMS_CALIBRATION_ERROR: "Calibration error (RMS)",
}
"""Metric -> its name in tables, in their order."""
HEADLINES = (
    (0.95, "Finds nearly all of what"),
    (0.75, "Finds most of what"),
    (0.5, "Finds more than half of what"),
    (0.2, "Misses more than half of what"),
    (0.0, "Misses nearly all of what"),
)
"""The least recall at 1 % false alarms -> what it is called."""
SHARES = {"0.1": "1 in 10", "0.03": "3 in 100", "0.01": "1 in 100", "0.001": "1 in 1,000"}
"""Shares of flagged pictures that a reader may choose, for what they are posted among."""
FEW = 100
"""Positives below which the report warns that its figures are rough."""
TRAINING_CURVES = {
    "Loss": {"loss_train": "train", "loss_val": "validation"},
    "Validation": {"auroc": "AUROC", "average_precision": "average precision"},
}
"""Chart -> the tables of `data/train/plots` that it draws, and their names."""


@dataclass(frozen=True)
class Panel:
    """One label's charts and slider."""

    label: str
    metrics: dict[str, Any]
    steps: Steps
    roc: str
    precision_recall: str
    reliability: str
    """SVG elements, inserted unescaped, as are all charts."""
    scores: str
    bins: list[Bin]


@dataclass(frozen=True)
class ReportData:
    """What the report and the model card are rendered from."""

    metrics: dict[str, Any]
    confidence: float
    sidecar: Sidecar
    predictions: Predictions
    panels: list[Panel]
    slices: list[Slice]
    corruptions: list[CorruptionResult]
    galleries: Galleries
    issue_count: int
    """All likely label errors; the galleries show the likeliest."""
    split: dict[str, Any]
    """The split stage's summary."""
    training: dict[str, str]
    """Title -> chart."""
    folds: list[Summary]
    """Results of other runs on this source and policy."""


def panels(predictions: Predictions, sidecar: Sidecar, metrics: dict[str, Any], params: Test) -> list[Panel]:
    """Draw each label's charts, and count the steps of its slider."""
    labels = decided(sidecar.kind, sidecar.labels)
    result = []
    for column, label in enumerate(labels):
        scores, truth = predictions.scores[:, column], predictions.truth[:, column]
        steps = thresholds.steps(scores, truth, sidecar.thresholds[label])
        found, alarms, missed, negatives = steps.counts(steps.own)
        recall, rate = found / (found + missed), alarms / (alarms + negatives)
        precision = found / (found + alarms) if found + alarms else 1.0
        of_roc, of_precision = curves.bands(scores, truth, predictions.groups, params.confidence, params.seed)
        parts = curves.bins(scores, truth, predictions.groups, params.confidence)
        result.append(
            Panel(
                label,
                metrics["labels"][label] if "labels" in metrics else metrics,
                steps,
                charts.roc(curves.roc(scores, truth), of_roc, int((~truth).sum()), (rate, recall)),
                charts.precision_recall(curves.precision_recall(scores, truth), of_precision, (recall, precision)),
                charts.reliability(parts),
                charts.histogram(label, steps),
                parts,
            )
        )
    return result


def read_split_summary() -> dict[str, Any]:
    """The split stage's summary.

    Raises:
        ModelError: if it is missing or not that stage's.
    """
    try:
        summary: dict[str, Any] = json.loads(paths.SPLIT_SUMMARY.read_bytes())
        if {"group_by", "folds", "fold", "pictures", "splits"} <= summary.keys():
            return summary
    except (OSError, ValueError, AttributeError):
        pass
    raise ModelError(f"{paths.SPLIT_SUMMARY} is missing or not what the split stage writes; run `dvc repro split`")


def training_charts() -> dict[str, str]:
    """Charts of the training, from the tables that DVCLive wrote; without those that have less than two points."""
    result = {}
    for title, names in TRAINING_CURVES.items():
        series = {words: _series(paths.TRAIN_PLOTS / f"{name}.tsv", name) for name, words in names.items()}
        series = {words: points for words, points in series.items() if len(points) > 1}
        if series:
            result[title] = charts.lines(title, series, "training step")
    return result


def _series(path: Path, name: str) -> Curve:
    if not path.exists():
        return np.empty((0, 2))
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["step"]), float(row[name])) for row in csv.DictReader(file, delimiter="\t")]
    points = np.array(rows, np.float64).reshape(-1, 2)
    return points[np.isfinite(points).all(1)]


def hosts(predictions: Predictions) -> list[str]:
    """The hosts that the split's pictures are from."""
    return sorted({urlsplit(url).hostname or "" for url in predictions.table["url"].to_pylist()})


def other_folds(predictions: Predictions, sidecar: Sidecar, split: dict[str, Any], runs: list[Row]) -> list[Summary]:
    """What is known of other runs on the same source and policy: this run's model first, then the baseline."""
    summaries = folds.summaries(runs, " ".join(hosts(predictions)), sidecar.policy, split["pictures"])
    places = list(folds.GROUPINGS)
    return sorted(
        summaries,
        key=lambda one: (
            places.index(one.group_by),
            not _same_model(one, sidecar),
            one.model != folds.BASELINE,
            one.model,
            one.backbone,
        ),
    )


def _same_model(summary: Summary, sidecar: Sidecar) -> bool:
    return (summary.model, summary.backbone) == model_name(sidecar)


def model_name(sidecar: Sidecar) -> tuple[str, str]:
    """A model's name, and its backbone's or "none"."""
    model = sidecar.params["model"]
    return model["name"], model.get("backbone") or "none"


@dataclass(frozen=True)
class Verdict:
    """What the report says first."""

    headline: str
    findings: list[str]
    """Sentences in plain text."""


def verdict(data: ReportData) -> Verdict:
    """Say in words how good the model is: here, at its threshold, on other folds, artists and origins."""
    metrics, labels = data.metrics, [panel.label for panel in data.panels]
    recall = metrics[RECALL_AT]
    words = next(words for least, words in HEADLINES if recall >= least)
    what = f"is {labels[0]}" if len(labels) == 1 else f"its {len(labels)} labels name"
    headline = f"{words} {what}: {100 * recall:.0f}\u00a0% at 1\u00a0% false alarms"
    findings = [_at_threshold(panel) for panel in data.panels] if len(labels) == 1 else [_weakest(data)]
    ours = {one.group_by: one for one in data.folds if _same_model(one, data.sidecar)}
    if same := ours.get(data.split["group_by"]):
        findings.append(_over_folds(same, data))
    for group_by in ("artist", "origin"):
        if group_by == data.split["group_by"]:
            continue
        if summary := ours.get(group_by):
            findings.append(f"On {folds.GROUPINGS[group_by]}, {_said(summary)}.{_of_other_data(summary, data)}")
        else:
            findings.append(f"On {folds.GROUPINGS[group_by]} it has not been measured: expect less than here.")
    few = [f"{panel.metrics['positives']} {panel.label}" for panel in data.panels if panel.metrics["positives"] < FEW]
    if few:
        findings.append(f"The test split has few positives ({', '.join(few)}), so all figures here are rough.")
    return Verdict(headline, findings)


def _at_threshold(panel: Panel) -> str:
    found, alarms, missed, negatives = panel.steps.counts(panel.steps.own)
    per_thousand = 1000 * alarms / (alarms + negatives)
    return (
        f"At its own threshold, {panel.metrics['threshold']:.3f}, it finds {found:,} of {found + missed:,} and raises "
        f"{per_thousand:.0f} false alarms per 1,000 pictures that are not {panel.label}."
    )


def _weakest(data: ReportData) -> str:
    weakest = min(data.panels, key=lambda panel: panel.metrics[RECALL_AT])
    return (
        f"The figures are means over the labels. The weakest is {weakest.label}, with a recall of "
        f"{100 * weakest.metrics[RECALL_AT]:.0f} % at 1 % false alarms."
    )


def _over_folds(summary: Summary, data: ReportData) -> str:
    # A fold of another data set has other pictures.
    same_data = summary.pictures == data.split["pictures"]
    judged = folds.difficulty(summary, str(data.split["fold"])) if same_data else ""
    sentence = f"On {folds.GROUPINGS[summary.group_by]}, {_said(summary)}."
    ending = {
        "easy": " This fold is one of the easy ones: expect less elsewhere.",
        "hard": " This fold is one of the hard ones.",
        "typical": " This fold is a typical one.",
        "": "",
    }[judged]
    return sentence + ending + _of_other_data(summary, data)


def _said(summary: Summary) -> str:
    names = {"auroc": "AUROC", "average_precision": "average precision", RECALL_AT: "recall at 1 % false alarms"}
    scores = ", ".join(
        f"{names[name]} {spread.mean:.3f} ({spread.low:.3f} to {spread.high:.3f})"
        for name, spread in summary.scores.items()
    )
    return f"mean and range of {len(summary.scores['auroc'].folds)} folds: {scores}"


def _of_other_data(summary: Summary, data: ReportData) -> str:
    if summary.pictures == data.split["pictures"]:
        return ""
    return f" That was measured on {summary.pictures:,} pictures; this data set has {data.split['pictures']:,}."


def render_report(data: ReportData) -> str:
    """The text of `report.html`, one file that loads nothing else."""
    # Of what a browser would run, only this script has the hash that the page's policy allows.
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    uploaded = sorted(date.date().isoformat() for date in data.predictions.table["created_at"].to_pylist() if date)
    return _render(
        "report.html.j2",
        data,
        escape=True,
        script=script,
        digest=digest,
        style=style,
        slider=[
            {
                "thresholds": [round(threshold, 9) for threshold in panel.steps.thresholds],
                "positives": panel.steps.positives,
                "negatives": panel.steps.negatives,
            }
            for panel in data.panels
        ],
        shares=SHARES,
        uploaded=(uploaded[0], uploaded[-1]) if uploaded else None,
        parameters=sorted(_flat(data.sidecar.params)),
    )


def render_model_card(data: ReportData) -> str:
    """The text of `models/README.md`."""
    return _render("model_card.md.j2", data, escape=False)


def _markdown(text: str) -> str:
    """Text for a cell of a Markdown table, in which a board's tags may otherwise be markup."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("`", "\\`").replace("[", "\\[")


def _flat(values: dict[str, Any], prefix: str = "train") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", json.dumps(value, ensure_ascii=False)


def _render(template: str, data: ReportData, *, escape: bool, **more: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,  # noqa: S701 (Markdown is not HTML)
        undefined=jinja2.StrictUndefined,  # a typo in a template is an error, not an empty string
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    sidecar, predictions = data.sidecar, data.predictions
    labels = decided(sidecar.kind, sidecar.labels)
    return environment.get_template(template).render(
        **vars(data),
        labels=labels,
        label_metrics={panel.label: panel.metrics for panel in data.panels},
        metric_names=METRIC_NAMES,
        recall_at=RECALL_AT,
        verdict=verdict(data),
        min_pictures=MIN_PICTURES,
        fewest=folds.FEWEST,
        model=model_name(sidecar),
        heads=sidecar.params["model"].get("heads", 1),
        parity_rows=list(_parity_rows(data.metrics.get("parity", {}))),
        hosts=hosts(predictions),
        groupings=folds.GROUPINGS,
        same_model=lambda summary: _same_model(summary, sidecar),
        md=_markdown,
        counts=Counter(label for verdict in predictions.true_verdicts(sidecar) for label in verdict.split("+")),
        **more,
    )


def _parity_rows(parity: dict[str, Any]) -> Iterator[tuple[str, int, str, dict[str, float]]]:
    """Rows of the parity table: a runtime, pictures, the runtime it is compared with ("" for none), and metrics."""
    for name, values in parity.items():
        if name != "pictures":
            yield name, parity["pictures"], "" if name == "torch" else "torch", values
