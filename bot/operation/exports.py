"""Moderators' decisions against the model's verdicts: how often it was right, threshold by threshold. Pure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.storage.tables import APPROVED, DELETED, TIMED_OUT, WRONG, Decision

GRID = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
"""Thresholds of the report."""
COLUMNS = ("created_at", "label", "score", "threshold", "verdict", "origin", "action", "done", "state", "model")
CONFIRMED, REJECTED = (DELETED, TIMED_OUT), (APPROVED, WRONG)


@dataclass(frozen=True)
class Precision:
    """Of the pictures that moderators decided on and that score at least `threshold`: which share had to go."""

    label: str
    threshold: float
    decided: int
    confirmed: int
    share: float
    low: float
    """End of the 95 % Wilson interval of `share`."""
    high: float


def precision(decisions: Iterable[Decision]) -> list[Precision]:
    """Precision of each label at the thresholds of `GRID`, as far as there are decisions.

    Only pictures that a model scored and a moderator looked at count. Below the lowest threshold that was in force
    nothing was shown to moderators, so that what would be found there is not known.
    """
    counted = [each for each in decisions if each.scores and each.state in CONFIRMED + REJECTED]
    found = []
    for label in sorted({each.label for each in counted}):
        mine = [each for each in counted if each.label == label]
        for threshold in GRID:
            over = [each for each in mine if each.score >= threshold]
            if over and threshold >= min(each.score for each in mine) - 0.1:
                confirmed = sum(each.state in CONFIRMED for each in over)
                low, high = wilson(confirmed, len(over))
                found.append(Precision(label, threshold, len(over), confirmed, confirmed / len(over), low, high))
    return found


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (E. B. Wilson, 1927)."""
    z = 1.959964
    share = hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def table(rows: Sequence[Precision]) -> str:
    """For people: a fixed-width table."""
    lines = ["label            from  decided  right  share  95 % interval"]
    lines += [
        f"{row.label[:16]:16} {row.threshold:.2f}  {row.decided:7} {row.confirmed:6}  {row.share:.2f}   "
        f"{row.low:.2f} to {row.high:.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def as_csv(decisions: Iterable[Decision]) -> str:
    """For programs: a row a decision. No user, no message and no picture is in it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for each in decisions:
        writer.writerow(
            [each.created_at, each.label, f"{each.score:.6f}", *(getattr(each, name) for name in COLUMNS[3:])]
        )
    return out.getvalue()
