"""What a threshold does: recall at a false positive rate, and the counts at each step of the report's slider."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.training.metrics import Flags, Floats

FALSE_POSITIVE_RATE = 0.01
"""That of the metric `recall_at_1_percent_fpr`."""
STEPS = 1000
"""Of the slider, besides the model's own threshold and the one with 1 % false alarms."""


def threshold_at(scores: Floats, truth: Flags, rate: float = FALSE_POSITIVE_RATE) -> float:
    """The lowest score whose false positive rate, as a threshold, is at most `rate`; infinite if there is none.

    Args:
        scores: [n] of one label.
        truth: [n], with negatives.
        rate: share of the negatives.
    """
    bound = _bound(scores, truth, rate)
    above = scores[scores > bound]
    return float(above.min()) if len(above) else np.inf


def recall_at(scores: Floats, truth: Flags, rate: float = FALSE_POSITIVE_RATE) -> float:
    """The largest recall of one label at a false positive rate of at most `rate`; of a `truth` with positives, too."""
    return float((scores[truth] > _bound(scores, truth, rate)).mean())


def _bound(scores: Floats, truth: Flags, rate: float) -> float:
    """The score that a threshold must be above; -infinity if every negative may be a false positive."""
    negatives = scores[~truth]
    allowed = int(rate * len(negatives) + 1e-9)  # 0.29 * 100 is a little less than 29
    if allowed >= len(negatives):
        return -np.inf
    return float(np.partition(negatives, -1 - allowed)[-1 - allowed])


@dataclass(frozen=True)
class Steps:
    """The positions of one label's slider, and the pictures between them."""

    thresholds: list[float]
    """Ascending, from 0 to 1."""
    positives: list[int]
    """How many score at least this threshold and less than the next one."""
    negatives: list[int]
    own: int
    """The position of the model's threshold."""
    one_percent: int
    """The position of the lowest threshold with at most 1 % false alarms."""

    def counts(self, position: int) -> tuple[int, int, int, int]:
        """True positives, false positives, false negatives and true negatives at a position."""
        found, alarms = sum(self.positives[position:]), sum(self.negatives[position:])
        return found, alarms, sum(self.positives) - found, sum(self.negatives) - alarms


def steps(scores: Floats, truth: Flags, threshold: float) -> Steps:
    """Count the pictures between the steps: scores (0 to 1) and truth [n] of one label, and the model's threshold."""
    one_percent = min(threshold_at(scores, truth), 1.0)
    grid = np.unique(np.r_[np.arange(STEPS + 1) / STEPS, threshold, one_percent])
    # float64, as the predictor compares.
    places = np.searchsorted(grid, scores.astype(np.float64), side="right") - 1

    def counted(among: Flags) -> list[int]:
        counts: list[int] = np.bincount(places[among], minlength=len(grid)).tolist()
        return counts

    return Steps(
        grid.tolist(),
        counted(truth),
        counted(~truth),
        int(np.searchsorted(grid, threshold)),
        int(np.searchsorted(grid, one_percent)),
    )
