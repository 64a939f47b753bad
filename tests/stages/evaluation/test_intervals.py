"""Bootstrap intervals: what is resampled, and what the intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.evaluation import intervals, thresholds
from stages.evaluation.intervals import Groups
from stages.training.metrics import Flags, Floats


def rows_by_definition(groups: Groups) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]


def assert_equal_rows(groups: Groups) -> None:
    for rows, expected in zip(intervals.rows_by_group(groups), rows_by_definition(groups), strict=True):
        assert rows.tolist() == expected.tolist()


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=60))
def test_groups_and_their_rows_are_in_ascending_order(groups: list[int]) -> None:
    assert_equal_rows(np.array(groups, np.int64))


def test_forty_thousand_groups_have_the_rows_of_the_definition() -> None:
    assert_equal_rows(np.random.default_rng(0).permutation(np.arange(60_000) % 40_000))


def test_a_resample_draws_whole_groups_with_their_pictures() -> None:
    scores, truth = example(60)
    groups = np.random.default_rng(1).integers(0, 20, 60)
    generator = np.random.default_rng(3)
    members = rows_by_definition(groups)
    expected = []
    for _ in range(10):
        rows = np.concatenate([members[place] for place in generator.integers(0, len(members), len(members))])
        expected.append(thresholds.of_labels(scores[rows], truth[rows], [0.5]))
    assert intervals.resampled(scores, truth, [0.5], groups, 10, seed=3) == expected


def example(count: int) -> tuple[Floats, Flags]:
    generator = np.random.default_rng(0)
    truth = (np.arange(count) % 3 == 0)[:, None]
    return (generator.uniform(0, 1, (count, 1)) * 0.7 + 0.3 * truth).astype(np.float32), truth


def interval(scores: Floats, truth: Flags, groups: Groups) -> dict[str, float | None]:
    resamples = intervals.resampled(scores, truth, [0.5], groups, 200, seed=3)
    values = thresholds.of_labels(scores, truth, [0.5])[0]
    return intervals.with_intervals(values, [labels[0] for labels in resamples], 0.9)


def test_near_duplicates_do_not_narrow_an_interval() -> None:
    scores, truth = example(60)
    once = interval(scores, truth, np.arange(60))
    copied = interval(np.repeat(scores, 7, axis=0), np.repeat(truth, 7, axis=0), np.repeat(np.arange(60), 7))
    for name, value in once.items():
        assert copied[name] == pytest.approx(value, abs=2e-6), name
    ungrouped = interval(np.repeat(scores, 7, axis=0), np.repeat(truth, 7, axis=0), np.arange(420))
    assert ungrouped["auroc_high"] - ungrouped["auroc_low"] < 0.6 * (once["auroc_high"] - once["auroc_low"])


def test_an_interval_holds_its_value_and_repeats() -> None:
    scores, truth = example(90)
    values = interval(scores, truth, np.arange(90) // 3)
    for name in ("auroc", "average_precision", "f1", "precision", "recall", "false_positive_rate"):
        assert values[f"{name}_low"] < values[name] < values[f"{name}_high"]
    assert interval(scores, truth, np.arange(90) // 3) == values


def test_resamples_without_positives_or_negatives_are_left_out() -> None:
    scores, truth = np.array([[0.9], [0.1]], np.float32), np.array([[True], [False]])
    resamples = intervals.resampled(scores, truth, [0.5], np.array([1, 2]), 100, seed=0)
    assert 20 < len(resamples) < 80
    assert intervals.with_intervals({"f1": 1.0}, [], 0.9) == {"f1": 1.0, "f1_low": None, "f1_high": None}
