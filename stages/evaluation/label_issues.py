"""Pictures whose labels are most likely wrong, by confident learning (Northcutt, Jiang & Chuang, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.predictions import Predictions
from stages.inference.sidecar import Sidecar, decided

COLUMNS = ("image_id", "label", "given", "likely", "score", "margin", "artist", "url", "tags")


@dataclass(frozen=True)
class Issue:
    """A picture that the model, sure as it is of others, takes to be what its tags deny."""

    place: int
    """Row in the predictions."""
    label: str
    given: bool
    """By its tags."""
    score: float
    margin: float
    """How far the model's confidence in the other answer is beyond what it mostly has in that answer."""


def issues(predictions: Predictions, sidecar: Sidecar) -> list[Issue]:
    """Likely issues of each label that has a threshold, the likeliest first.

    A picture is one if the model's confidence in the answer that its tags do not give is at least the mean of its
    confidence in that answer over the pictures that have it. The scores must be of pictures that the model was not
    trained on, as those of the test split are.
    """
    found: list[Issue] = []
    for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        scores, truth = predictions.scores[:, place].astype(np.float64), predictions.truth[:, place]
        for given in (True, False):
            other = 1 - scores if given else scores  # confidence in the answer that the tags do not give
            usual = _mean(other, ~truth if given else truth)
            suspects = np.flatnonzero((truth == given) & (other >= usual))
            found += [
                Issue(int(at), label, given, float(scores[at]), round(float(other[at] - usual), 6)) for at in suspects
            ]
    return sorted(found, key=lambda issue: (-abs(issue.score - issue.given), issue.place))


def _mean(values: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    return float(values[among].mean()) if among.any() else np.inf


def rows(found: list[Issue], predictions: Predictions) -> list[list[object]]:
    """`label_issues.csv`, in the order of `COLUMNS`."""
    told = predictions.table.select(["image_id", "artist", "url", "tags"]).to_pylist()
    return [
        [
            told[issue.place]["image_id"],
            issue.label,
            issue.label if issue.given else f"not {issue.label}",
            f"not {issue.label}" if issue.given else issue.label,
            round(issue.score, 6),
            issue.margin,
            told[issue.place]["artist"] or "",
            told[issue.place]["url"],
            " ".join(told[issue.place]["tags"]),
        ]
        for issue in found
    ]
