"""Confidence intervals of the test metrics and of rates, by whole groups of near-duplicates."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.label_metrics import RMS_CALIBRATION_ERROR, of_labels
from stages.training.metrics import DIGITS, Flags, Floats
from stages.workspace.progress import track

Groups = NDArray[np.int64]
"""[n]: the group of near-duplicates that each picture belongs to."""


def resampled(
    scores: Floats, truth: Flags, thresholds: list[float], groups: Groups, count: int, seed: int
) -> list[list[dict[str, float]]]:
    """Bootstrap the metrics: draw as many groups as there are, with replacement, and measure their pictures.

    Near-duplicates get nearly the same score, so a bootstrap over single pictures would make the intervals too narrow.

    Args:
        scores: [n, labels] probabilities.
        truth: [n, labels].
        thresholds: of the first labels; only these are measured.
        groups: [n].
        count: resamples to draw.
        seed: of the draws.

    Returns:
        The metrics of each label, for each resample in which every label has both positives and negatives: at most
        `count` of them.
    """
    members = rows_by_group(groups)
    generator = np.random.default_rng(seed)
    resamples = []
    for _ in track(range(count), "bootstrap", count, "resample"):
        rows = np.concatenate([members[group] for group in generator.integers(0, len(members), len(members))])
        # AUROC is undefined where a label has only positives or only negatives.
        positive_share = truth[rows, : len(thresholds)].mean(0)
        if ((positive_share > 0) & (positive_share < 1)).all():
            resamples.append(of_labels(scores[rows], truth[rows], thresholds))
    return resamples


def rows_by_group(groups: Groups) -> list[NDArray[np.int64]]:
    """The rows of each group, both ascending. One sort, so that it takes 0.1 s for 40,000 groups."""
    order = np.argsort(groups, kind="stable")  # stable: rows stay ascending within a group
    _, starts = np.unique(groups[order], return_index=True)
    return np.split(order, starts[1:])


def with_intervals(
    values: dict[str, float], resamples: list[dict[str, float]], confidence: float
) -> dict[str, float | None]:
    """Each metric, followed by its interval as `NAME_low` and `NAME_high`; None without resamples.

    The intervals are percentiles of the resamples, but for the calibration error. Chance raises it even if the scores
    are calibrated, and a resample's is raised once more, so that its percentiles may not even hold the value. Of its
    square, chance adds as much in a resample as in the split, whatever the true error is. So the square is lowered by
    how far the resamples' median is above it, and their differences from it count the other way (the basic bootstrap):
    the median's place is then the corrected value's, and within the interval.
    """
    metrics: dict[str, float | None] = {}
    ends = ((1 - confidence) / 2, 0.5, (1 + confidence) / 2)
    for name, value in values.items():
        low = high = None
        if resamples:
            low, median, high = np.quantile([resample[name] for resample in resamples], ends).tolist()
            if name == RMS_CALIBRATION_ERROR:
                value, low, high = (math.sqrt(max(0, 2 * value**2 - end**2)) for end in (median, high, low))
        for key, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high)):
            metrics[key] = None if number is None else round(number, DIGITS)
    return metrics


def rate(flags: Flags, groups: Groups, confidence: float) -> tuple[float, float, float]:
    """The share of pictures with a flag, and its Wilson interval: flags and groups [n], n > 0.

    The interval is that of as many independent pictures as the groups are worth (Kish's effective sample size): copies
    of a picture do not narrow it.
    """
    share = float(flags.mean())
    sizes = np.unique(groups, return_counts=True)[1].astype(float)
    count = float(sizes.sum() ** 2 / (sizes**2).sum())
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return share, max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))
