"""Likely label errors, found by confident learning (Northcutt, Jiang & Chuang, "Confident Learning", 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.predictions import Predictions
from stages.inference.sidecar import Sidecar, decided

COLUMNS = ("image_id", "label", "given", "likely", "score", "margin", "artist", "url", "tags")


@dataclass(frozen=True)
class Issue:
    """A picture that the model confidently contradicts the label of."""

    row: int
    """In the predictions."""
    label: str
    given: bool
    """Whether its tags give it the label."""
    score: float
    margin: float
    """The model's confidence in the other class - its mean confidence over the pictures of that class."""


def find(predictions: Predictions, sidecar: Sidecar) -> list[Issue]:
    """Find likely label errors of each label that has a threshold, the likeliest first.

    A label is likely wrong if the model's confidence in the other class is at least its mean confidence in that class
    over the pictures that belong to it. The scores must be out-of-sample, as those of the test split are.
    """
    issues: list[Issue] = []
    for column, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        scores, truth = predictions.scores[:, column].astype(np.float64), predictions.truth[:, column]
        for given in (True, False):
            confidence = 1 - scores if given else scores  # in the class that the picture is not labelled with
            # A threshold for each class: the model may be less sure of one class than of the other.
            self_confidence = _mean(confidence, ~truth if given else truth)
            suspects = np.flatnonzero((truth == given) & (confidence >= self_confidence))
            issues += [
                Issue(int(row), label, given, float(scores[row]), round(float(confidence[row] - self_confidence), 6))
                for row in suspects
            ]
    # The worst contradictions first: a score near 0 of a picture with the label, near 1 of one without it.
    return sorted(issues, key=lambda issue: (-abs(issue.score - issue.given), issue.row))


def _mean(values: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    """The mean of the chosen values; infinite if there is none, so that nothing reaches it."""
    return float(values[among].mean()) if among.any() else np.inf


def rows(issues: list[Issue], predictions: Predictions) -> list[list[object]]:
    """The rows of `label_issues.csv`, with the columns `COLUMNS`."""
    pictures = predictions.table.select(["image_id", "artist", "url", "tags"]).to_pylist()
    return [
        [
            pictures[issue.row]["image_id"],
            issue.label,
            issue.label if issue.given else f"not {issue.label}",
            f"not {issue.label}" if issue.given else issue.label,
            round(issue.score, 6),
            issue.margin,
            pictures[issue.row]["artist"] or "",
            pictures[issue.row]["url"],
            " ".join(pictures[issue.row]["tags"]),
        ]
        for issue in issues
    ]
