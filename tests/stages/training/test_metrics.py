"""Metrics against their definitions, and what their intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.training import metrics

EXAMPLES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[metrics.Floats, metrics.Flags]:
    return np.array([score / 20 for score, _ in rows], np.float32), np.array([truth for _, truth in rows])


@settings(deadline=None, max_examples=60)
@given(EXAMPLES)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(rows)
    above = scores[truth][:, None] - scores[~truth][None, :]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    assert metrics.measured(scores, truth, 0.5)["auroc"] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(EXAMPLES, st.integers(1, 19))
def test_what_is_at_or_over_the_threshold_counts(rows: list[tuple[int, bool]], cut: int) -> None:
    scores, truth = arrays(rows)
    threshold = float(np.float32(cut / 20))
    given = scores >= threshold
    hits, alarms, missed = (given & truth).sum(), (given & ~truth).sum(), (~given & truth).sum()
    found = metrics.measured(scores, truth, threshold)
    assert found["recall"] == pytest.approx(hits / (hits + missed))
    assert found["precision"] == pytest.approx(hits / max(hits + alarms, 1))
    assert found["f1"] == pytest.approx(2 * hits / max(2 * hits + alarms + missed, 1))
    assert found["false_alarms"] == pytest.approx(alarms / (~truth).sum())


def test_golden_values() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.1], np.float32)
    truth = np.array([True, False, True, False, True, False])
    found = metrics.measured(scores, truth, 0.5)
    assert found["auroc"] == pytest.approx(6 / 9)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


def example(count: int) -> tuple[metrics.Floats, metrics.Flags]:
    chance = np.random.default_rng(0)
    truth = (np.arange(count) % 3 == 0)[:, None]
    return (chance.uniform(0, 1, (count, 1)) * 0.7 + 0.3 * truth).astype(np.float32), truth


def interval(scores: metrics.Floats, truth: metrics.Flags, groups: metrics.Groups) -> dict[str, float | None]:
    resamples = metrics.resampled(scores, truth, [0.5], groups, 200, seed=3)
    return metrics.with_intervals(metrics.of_labels(scores, truth, [0.5])[0], [each[0] for each in resamples], 0.9)


def test_near_duplicates_make_nothing_surer() -> None:
    scores, truth = example(60)
    once = interval(scores, truth, np.arange(60))
    copied = interval(np.repeat(scores, 7, axis=0), np.repeat(truth, 7, axis=0), np.repeat(np.arange(60), 7))
    for name, value in once.items():
        assert copied[name] == pytest.approx(value, abs=2e-6), name
    taken_apart = interval(np.repeat(scores, 7, axis=0), np.repeat(truth, 7, axis=0), np.arange(420))
    assert taken_apart["auroc_high"] - taken_apart["auroc_low"] < 0.6 * (once["auroc_high"] - once["auroc_low"])


def test_an_interval_holds_its_value_and_repeats() -> None:
    scores, truth = example(90)
    found = interval(scores, truth, np.arange(90) // 3)
    for name in ("auroc", "average_precision", "f1", "precision", "recall", "false_alarms"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert interval(scores, truth, np.arange(90) // 3) == found


def test_resamples_without_a_label_say_nothing() -> None:
    scores, truth = np.array([[0.9], [0.1]], np.float32), np.array([[True], [False]])
    resamples = metrics.resampled(scores, truth, [0.5], np.array([1, 2]), 100, seed=0)
    assert 20 < len(resamples) < 80
    assert metrics.with_intervals({"f1": 1.0}, [], 0.9) == {"f1": 1.0, "f1_low": None, "f1_high": None}
