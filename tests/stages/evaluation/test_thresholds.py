"""Recall at a false positive rate, and the steps of the slider, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation import thresholds
from stages.training.metrics import Flags, Floats

ROWS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[Floats, Flags]:
    return np.array([score / 20 for score, _ in rows], np.float32), np.array([truth for _, truth in rows])


@given(ROWS, st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]))
def test_recall_at_a_rate_is_the_best_of_all_thresholds(rows: list[tuple[int, bool]], rate: float) -> None:
    scores, truth = arrays(rows)
    best = 0.0
    for threshold in [*scores.tolist(), np.inf]:
        over = scores >= threshold
        if over[~truth].mean() <= rate + 1e-12:
            best = max(best, float(over[truth].mean()))
    assert thresholds.recall_at(scores, truth, rate) == pytest.approx(best)
    chosen = thresholds.threshold_at(scores, truth, rate)
    assert (scores[truth] >= chosen).mean() == pytest.approx(best)
    assert (scores[~truth] >= chosen).mean() <= rate + 1e-12


@given(ROWS, st.floats(0.001, 0.999))
def test_the_steps_count_what_each_threshold_does(rows: list[tuple[int, bool]], own: float) -> None:
    scores, truth = arrays(rows)
    steps = thresholds.steps(scores, truth, own)
    assert steps.thresholds == sorted(set(steps.thresholds))
    assert steps.thresholds[steps.own] == own
    assert len(steps.thresholds) <= thresholds.STEPS + 3, "bounded, whatever the number of pictures"
    exact = scores.astype(np.float64)  # as the predictor compares
    for position in {0, steps.own, steps.one_percent, len(steps.thresholds) - 1, 500}:
        over = exact >= steps.thresholds[position]
        assert steps.counts(position) == (
            (over & truth).sum(),
            (over & ~truth).sum(),
            (~over & truth).sum(),
            (~over & ~truth).sum(),
        )
