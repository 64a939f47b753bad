"""Curves behind the metrics: as tables for `dvc plots`, and drawn for the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from stages.training.metrics import Flags, Floats

mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "mlpy", "font.family": "sans-serif"}

POINTS = 500
"""Of a curve, at most: more than can be seen."""
GRID = 201
"""Points of an average of curves."""
ROC = ("false_positive_rate", "true_positive_rate")
PRECISION_RECALL = ("recall", "precision")
RELIABILITY = ("score", "share_with_the_label")
Curve = NDArray[np.float64]
"""[n, 2]: x and y."""


def roc(scores: Floats, truth: Flags) -> Curve:
    """The ROC curve of one label: scores and truth [n] -> false and true positive rates."""
    false, true, _ = binary_roc(torch.from_numpy(scores), torch.from_numpy(truth).int())
    return _thinned(np.stack([false.numpy(), true.numpy()], axis=1).astype(np.float64))


def precision_recall(scores: Floats, truth: Flags) -> Curve:
    """The precision-recall curve of one label: scores and truth [n] -> recall and precision."""
    precision, recall, _ = binary_precision_recall_curve(torch.from_numpy(scores), torch.from_numpy(truth).int())
    return _thinned(np.stack([recall.numpy(), precision.numpy()], axis=1).astype(np.float64))


def _thinned(curve: Curve) -> Curve:
    """Rounded, without points inside straight lines, at most `POINTS`."""
    curve = curve.round(5)
    if len(curve) > 2:
        steps = np.diff(curve, axis=0)
        turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
        curve = curve[np.r_[True, turns, True]]
    kept: Curve = curve[np.unique(np.linspace(0, len(curve) - 1, min(len(curve), POINTS)).astype(int))]
    return kept


def averaged(each: list[Curve]) -> Curve:
    """One curve of several labels: the mean of y at evenly spaced x; of one label, its own."""
    if len(each) == 1:
        return each[0]
    places = np.linspace(0, 1, GRID)
    ordered = [curve if curve[0, 0] <= curve[-1, 0] else curve[::-1] for curve in each]
    means = np.mean([np.interp(places, curve[:, 0], curve[:, 1]) for curve in ordered], axis=0)
    return np.stack([places, means], axis=1).round(5)


def reliability(scores: Floats, truth: Flags, bins: int = 10) -> Curve:
    """Of pictures that score about the same, the share that has the label: [bins with pictures, 2]."""
    bucket = np.minimum((scores * bins).astype(int), bins - 1)
    filled = np.unique(bucket)
    means = [(scores[bucket == each].mean(), truth[bucket == each].mean()) for each in filled]
    return np.array(means, np.float64).round(5)


def write_table(target: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as `dvc plots` reads it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def drawn(title: str, columns: tuple[str, str], curves: dict[str, Curve], diagonal: str = "") -> str:
    """Curves by label as an SVG image, the same text each time."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        axes.plot(curve[:, 0], curve[:, 1], marker="." if len(curve) <= 10 else None, label=label)
    if diagonal:
        axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", label=diagonal)
    axes.set(title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel(columns[0].replace("_", " "))
    axes.set_ylabel(columns[1].replace("_", " "))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return _svg(figure)


def drawn_scores(label: str, scores: Floats, truth: Flags, threshold: float) -> str:
    """How often a label's scores [n] occur among its pictures and among the others, as an SVG image."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 26)
    for name, chosen in ((label, truth), (f"not {label}", ~truth)):
        axes.hist(scores[chosen], bins.tolist(), alpha=0.6, label=name)
    axes.axvline(threshold, color="0.2", linestyle=":", label="threshold")
    axes.set(title=f"Scores of {label}", xlabel="score", ylabel="pictures", yscale="log", xlim=(0, 1))
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
