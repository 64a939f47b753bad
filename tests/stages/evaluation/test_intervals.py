"""Bootstrap intervals: what is resampled, and what the intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.evaluation import intervals, label_metrics
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
        expected.append(label_metrics.of_labels(scores[rows], truth[rows], [0.5]))
    assert intervals.resampled(scores, truth, [0.5], groups, 10, seed=3) == expected


def example(count: int) -> tuple[Floats, Flags]:
    generator = np.random.default_rng(0)
    truth = (np.arange(count) % 3 == 0)[:, None]
    return (generator.uniform(0, 1, (count, 1)) * 0.7 + 0.3 * truth).astype(np.float32), truth


def interval(scores: Floats, truth: Flags, groups: Groups) -> dict[str, float | None]:
    resamples = intervals.resampled(scores, truth, [0.5], groups, 200, seed=3)
    values = label_metrics.of_labels(scores, truth, [0.5])[0]
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


def with_calibration(scores: Floats, truth: Flags, groups: Groups, confidence: float) -> tuple[float, float, float]:
    """The corrected calibration error and its interval, by resamples as the stage draws them."""
    measure = label_metrics.rms_calibration_error
    members, generator = intervals.rows_by_group(groups), np.random.default_rng(3)
    draws = []
    for _ in range(100):
        rows = np.concatenate([members[group] for group in generator.integers(0, len(members), len(members))])
        draws.append({"rms_calibration_error": measure(scores[rows], truth[rows])})
    metrics = intervals.with_intervals({"rms_calibration_error": measure(scores, truth)}, draws, confidence)
    return tuple(metrics.values())  # type: ignore[return-value]


@given(
    st.integers(4, 200), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 7]), st.sampled_from([0.0, 0.5, 1.0, 3.0])
)
@settings(max_examples=30, deadline=None)
def test_a_calibration_error_lies_inside_its_interval(count: int, seed: int, copies: int, slope: float) -> None:
    """Of calibrated scores (a slope of 1), and of scores that say too little or too much."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, count)
    truth = generator.uniform(size=count) < 1 / (1 + np.exp(-slope * logits))
    scores = np.repeat((1 / (1 + np.exp(-logits))).astype(np.float32), copies)
    value, low, high = with_calibration(scores, np.repeat(truth, copies), np.repeat(np.arange(count), copies), 0.9)
    assert 0 <= low <= value <= high


@pytest.mark.parametrize("error", [0.0, 0.05, 0.1])
def test_the_interval_of_a_calibration_error_holds_the_true_one(error: float) -> None:
    """Each score says `error` too little. Of 40 samples, 95 % intervals miss it in about two."""
    held, values, plain = 0, [], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        scores = np.repeat(generator.uniform(0, 0.8, 200).astype(np.float32), 2)
        truth = np.repeat(generator.uniform(size=200) < scores[::2] + error, 2)
        value, low, high = with_calibration(scores, truth, np.repeat(np.arange(200), 2), 0.95)
        held += low <= error <= high
        values.append(value)
        plain.append(label_metrics.rms_calibration_error(scores, truth))
    assert held >= 35
    assert abs(np.median(values) - error) < 0.5 * abs(np.median(plain) - error), "chance adds little to it"


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_rate_lies_inside_its_interval_and_copies_do_not_narrow_it(flags: list[bool], confidence: float) -> None:
    seen, groups = np.array(flags), np.arange(len(flags))
    share, low, high = intervals.rate(seen, groups, confidence)
    assert 0 <= low <= share <= high <= 1
    copied = intervals.rate(np.repeat(seen, 5), np.repeat(groups, 5), confidence)
    assert copied == pytest.approx((share, low, high))


def test_resamples_without_positives_or_negatives_are_left_out() -> None:
    scores, truth = np.array([[0.9], [0.1]], np.float32), np.array([[True], [False]])
    resamples = intervals.resampled(scores, truth, [0.5], np.array([1, 2]), 100, seed=0)
    assert 20 < len(resamples) < 80
    assert intervals.with_intervals({"f1": 1.0}, [], 0.9) == {"f1": 1.0, "f1_low": None, "f1_high": None}
