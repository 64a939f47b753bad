"""Point metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.training import metrics

EXAMPLES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)
"""Scores in twentieths, with true labels of both kinds."""


def arrays(rows: list[tuple[int, bool]]) -> tuple[metrics.Floats, metrics.Flags]:
    return np.array([score / 20 for score, _ in rows], np.float32), np.array([truth for _, truth in rows])


@settings(max_examples=60)
@given(EXAMPLES)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(rows)
    differences = scores[truth][:, None] - scores[~truth][None, :]
    expected = ((differences > 0) + 0.5 * (differences == 0)).mean()
    assert metrics.of_label(scores, truth, 0.5)["auroc"] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60)
@given(EXAMPLES, st.integers(1, 19))
def test_a_score_at_or_above_the_threshold_is_a_positive_prediction(rows: list[tuple[int, bool]], cut: int) -> None:
    scores, truth = arrays(rows)
    threshold = float(np.float32(cut / 20))
    predicted = scores >= threshold
    true_positives, false_positives, missed = (
        (predicted & truth).sum(),
        (predicted & ~truth).sum(),
        (~predicted & truth).sum(),
    )
    values = metrics.of_label(scores, truth, threshold)
    assert values["recall"] == pytest.approx(true_positives / (true_positives + missed))
    assert values["precision"] == pytest.approx(true_positives / max(true_positives + false_positives, 1))
    assert values["f1"] == pytest.approx(2 * true_positives / max(2 * true_positives + false_positives + missed, 1))
    assert values["false_positive_rate"] == pytest.approx(false_positives / (~truth).sum())


def test_golden_values() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.1], np.float32)
    truth = np.array([True, False, True, False, True, False])
    values = metrics.of_label(scores, truth, 0.5)
    assert values["auroc"] == pytest.approx(6 / 9)
    assert values["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


def test_metrics_are_averaged_over_labels() -> None:
    scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.1, 0.6]], np.float32)
    truth = np.array([[True, False], [True, True], [False, False]])
    labels = metrics.of_labels(scores, truth, [0.5, 0.5])
    assert [values["recall"] for values in labels] == [0.5, 1.0]
    assert metrics.averaged(labels)["recall"] == 0.75
