"""ROC, precision-recall and reliability curves: tables for `dvc plots`, SVG images for the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from stages.training.metrics import Flags, Floats

# A fixed salt makes matplotlib's ids, and so the report's bytes, repeatable; text stays text and uses the page's font.
mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "mlpy", "font.family": "sans-serif"}

MAX_POINTS = 500
"""Of a curve; more than a screen can show."""
GRID_POINTS = 201
"""Of an average of curves."""
RELIABILITY_BINS = 10
ROC = ("false_positive_rate", "true_positive_rate")
PRECISION_RECALL = ("recall", "precision")
RELIABILITY = ("mean_score", "fraction_of_positives")
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
    """Round the points, drop those inside straight lines, and keep at most `MAX_POINTS`."""
    curve = curve.round(5)
    if len(curve) > 2:
        steps = np.diff(curve, axis=0)
        # Two steps go in the same direction where their cross product is 0.
        turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
        curve = curve[np.r_[True, turns, True]]
    thinned: Curve = curve[np.unique(np.linspace(0, len(curve) - 1, min(len(curve), MAX_POINTS)).astype(int))]
    return thinned


def averaged(curves: list[Curve]) -> Curve:
    """The mean of several labels' curves at `GRID_POINTS` evenly spaced x; a single curve as it is."""
    if len(curves) == 1:
        return curves[0]
    grid = np.linspace(0, 1, GRID_POINTS)
    # np.interp needs ascending x, and a precision-recall curve starts at a recall of 1.
    ascending = [curve if curve[0, 0] <= curve[-1, 0] else curve[::-1] for curve in curves]
    means = np.mean([np.interp(grid, curve[:, 0], curve[:, 1]) for curve in ascending], axis=0)
    return np.stack([grid, means], axis=1).round(5)


def reliability(scores: Floats, truth: Flags) -> Curve:
    """The reliability curve of one label: mean score and fraction of positives of each bin that has pictures."""
    bins = np.minimum((scores * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    means = [(scores[bins == place].mean(), truth[bins == place].mean()) for place in np.unique(bins)]
    return np.array(means, np.float64).round(5)


def write_table(target: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file that `dvc plots` reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def curves_svg(title: str, columns: tuple[str, str], curves: dict[str, Curve], diagonal: str = "") -> str:
    """Draw each label's curve, and a diagonal with that legend, as an SVG element."""
    figure, axes = _axes()
    for label, curve in curves.items():
        # The few points of a reliability curve are marked, for its lines between them mean nothing.
        axes.plot(curve[:, 0], curve[:, 1], marker="." if len(curve) <= RELIABILITY_BINS else None, label=label)
    if diagonal:
        axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", label=diagonal)
    axes.set(title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel(columns[0].replace("_", " "))
    axes.set_ylabel(columns[1].replace("_", " "))
    axes.grid(alpha=0.25)
    return _svg(figure, axes)


def histogram_svg(label: str, scores: Floats, truth: Flags, threshold: float) -> str:
    """Draw histograms of a label's scores [n], of positives and of negatives, as an SVG element."""
    figure, axes = _axes()
    bins = np.linspace(0, 1, 26)
    for name, chosen in ((label, truth), (f"not {label}", ~truth)):
        axes.hist(scores[chosen], bins.tolist(), alpha=0.6, label=name)
    axes.axvline(threshold, color="0.2", linestyle=":", label="threshold")
    axes.set(title=f"Scores of {label}", xlabel="score", ylabel="pictures", yscale="log", xlim=(0, 1))
    return _svg(figure, axes)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure, axes: Axes) -> str:
    axes.legend(frameon=False)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration, which HTML does not allow
