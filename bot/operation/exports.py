"""Moderators' decisions compared with the model's scores: precision per threshold, and a CSV file. Pure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.storage.tables import APPROVED, DELETED, TIMED_OUT, WRONG, Decision

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
"""Rows of the report."""
COLUMNS = ("created_at", "label", "score", "threshold", "verdict", "origin", "action", "done", "state", "model")
CONFIRMED, REJECTED = (DELETED, TIMED_OUT), (APPROVED, WRONG)
MARGIN = 0.1
"""How far below the lowest reviewed score a threshold is still reported."""
Z = 1.959964
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class ThresholdPrecision:
    """Of the reviewed pictures that score at least `threshold` on `label`, the share that moderators removed."""

    label: str
    threshold: float
    decided: int
    """Reviewed pictures."""
    confirmed: int
    """Those that were removed."""
    share: float
    low: float
    """Lower end of the 95 % Wilson interval of `share`."""
    high: float


def threshold_precisions(decisions: Iterable[Decision]) -> list[ThresholdPrecision]:
    """Precision of each label at each of `THRESHOLDS` for which there are reviewed pictures.

    Only pictures that a model scored and a moderator reviewed count. Moderators see no picture below the lowest
    threshold that was in force, so that precision below it is unknown and left out.
    """
    reviewed = [decision for decision in decisions if decision.scores and decision.state in CONFIRMED + REJECTED]
    rows = []
    for label in sorted({decision.label for decision in reviewed}):
        of_label = [decision for decision in reviewed if decision.label == label]
        lowest = min(decision.score for decision in of_label) - MARGIN
        for threshold in THRESHOLDS:
            above = [decision for decision in of_label if decision.score >= threshold]
            # Far below the lowest reviewed score every row would repeat the same numbers.
            if above and threshold >= lowest:
                confirmed = sum(decision.state in CONFIRMED for decision in above)
                share = confirmed / len(above)
                low, high = wilson_interval(confirmed, len(above))
                rows.append(ThresholdPrecision(label, threshold, len(above), confirmed, share, low, high))
    return rows


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (E. B. Wilson, 1927)."""
    share = successes / trials
    middle = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / (1 + Z * Z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def as_table(rows: Sequence[ThresholdPrecision]) -> str:
    """A fixed-width table for people."""
    lines = ["label            from reviewed removed share  95 % interval"]
    lines += [
        f"{row.label[:16]:16} {row.threshold:.2f} {row.decided:8} {row.confirmed:7}  {row.share:.2f}  "
        f"{row.low:.2f} to {row.high:.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def as_csv(decisions: Iterable[Decision]) -> str:
    """A row per decision, for programs: no user, message or picture can be identified by it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for decision in decisions:
        others = (getattr(decision, name) for name in COLUMNS[3:])
        writer.writerow([decision.created_at, decision.label, f"{decision.score:.6f}", *others])
    return out.getvalue()
