"""Calibration and thresholds: what holds for them on the pictures that they were fitted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.training.calibration import Calibration, calibrated, fit, thresholds

GOLDEN = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9], np.float32)
TRUTH = np.array([0, 0, 1, 0, 0, 1, 0, 1], np.float32)

# Of single precision as the graph's scores are: anywhere, equal ones, and neighbours at both ends.
score = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.integers(0, 9).map(lambda n: float(np.float32(1) - n * np.float32(2**-24))),
    st.integers(0, 9).map(lambda n: float(np.float32(0.3) + n * np.float32(2**-25))),
)
board = st.lists(st.tuples(score, st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)
rates = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])


def columns(rows: list[tuple[float, bool]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return np.array([score for score, _ in rows], np.float32), np.array([truth for _, truth in rows])


def threshold(scores: NDArray[np.float32], truth: NDArray[np.generic], objective: str, rate: float = 0.0) -> float:
    both = np.stack([scores, 1 - scores], 1), np.stack([truth, ~truth.astype(bool)], 1).astype(np.float32)
    found = thresholds(*both, "binary", ("flagged", "clean"), objective, rate)
    assert found.keys() == {"flagged"}, "the harmless label has none"
    return found["flagged"]


def f1(given: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return 2 * (given & truth).sum() / (given.sum() + truth.sum())


@pytest.mark.parametrize(
    ("objective", "rate", "expected"),
    [
        ("f1", 0.0, 0.15),  # 0.15 and 0.5 have the same F1: the lowest is chosen
        ("false_positive_rate", 0.0, 0.8),
        ("false_positive_rate", 0.2, 0.5),
        ("false_positive_rate", 1.0, 0.025),
        ("recall", 1.0, 0.15),
        ("recall", 0.6, 0.5),
        ("recall", 0.0, 0.95),
    ],
)
def test_the_threshold_of_known_scores(objective: str, rate: float, expected: float) -> None:
    assert threshold(GOLDEN, TRUTH, objective, rate) == pytest.approx(expected, abs=1e-6)


def test_a_threshold_has_six_decimals() -> None:
    scores = np.array([1 / 3, 2 / 3], np.float32)
    assert threshold(scores, np.array([0, 1]), "f1") == 0.5
    assert threshold(scores / 7, np.array([0, 1]), "f1") == 0.071429


@given(rows=board, rate=rates)
def test_the_false_positive_rate_is_at_most_the_target(rows: list[tuple[float, bool]], rate: float) -> None:
    scores, truth = columns(rows)
    assert (scores >= threshold(scores, truth, "false_positive_rate", rate))[~truth].mean() <= rate


@given(rows=board, rate=rates)
def test_a_lower_threshold_would_flag_too_many(rows: list[tuple[float, bool]], rate: float) -> None:
    scores, truth = columns(rows)
    cut = threshold(scores, truth, "false_positive_rate", rate)
    if (below := scores[scores < cut]).size:
        assert (scores >= below.max())[~truth].mean() > rate


@given(rows=board, rate=rates)
def test_the_recall_is_at_least_the_target(rows: list[tuple[float, bool]], rate: float) -> None:
    scores, truth = columns(rows)
    assert (scores >= threshold(scores, truth, "recall", rate))[truth].mean() >= rate


@given(rows=board, rate=rates)
def test_a_higher_threshold_would_miss_too_many(rows: list[tuple[float, bool]], rate: float) -> None:
    scores, truth = columns(rows)
    cut = threshold(scores, truth, "recall", rate)
    if (over := scores[scores >= cut]).size:
        assert (scores > over.min())[truth].mean() < rate


@given(rows=board)
def test_no_threshold_has_a_greater_f1(rows: list[tuple[float, bool]]) -> None:
    scores, truth = columns(rows)
    chosen = f1(scores >= threshold(scores, truth, "f1"), truth)
    assert chosen >= max(f1(scores >= cut, truth) for cut in scores) - 1e-12


@given(rows=board, objective=st.sampled_from(["f1", "false_positive_rate", "recall"]), rate=rates)
def test_single_and_double_precision_flag_the_same(rows: list[tuple[float, bool]], objective: str, rate: float) -> None:
    scores, truth = columns(rows)
    cut = threshold(scores, truth, objective, rate)
    assert ((scores.astype(float) >= cut) == (scores >= np.float32(cut))).all()


def test_every_label_of_a_multilabel_policy_has_a_threshold() -> None:
    scores = np.stack([GOLDEN, GOLDEN[::-1]], 1)
    found = thresholds(scores, np.stack([TRUTH, TRUTH[::-1]], 1), "multilabel", ("a", "b"), "recall", 1.0)
    assert found == {"a": pytest.approx(0.15), "b": pytest.approx(0.15)}


def overconfident(outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits three times as large as they should be, and labels [n, 2 for a binary policy, else outputs]."""
    random = torch.Generator().manual_seed(3)
    true = torch.randn((4000, outputs), generator=random)
    if outputs == 1:
        labels = (torch.rand((4000, 1), generator=random) < true.sigmoid()).float()
        return 3 * true, torch.cat([labels, 1 - labels], 1)
    chosen = torch.multinomial(true.softmax(1), 1, generator=random)
    return 3 * true, torch.zeros_like(true).scatter_(1, chosen, 1.0)


def test_overconfidence_is_corrected() -> None:
    found = fit(*overconfident(1), "binary")
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.bias == (pytest.approx(0, abs=0.1),)


def test_overconfidence_of_several_labels_is_corrected() -> None:
    assert fit(*overconfident(4), "multiclass").temperature == pytest.approx(3, rel=0.1)


def test_a_shift_by_class_weights_is_corrected() -> None:
    logits, labels = overconfident(1)
    assert fit(logits / 3 + 1.5, labels, "binary").bias[0] == pytest.approx(-1.5, abs=0.1)


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 1), ("multilabel", 3)])
def test_the_fit_changes_no_ranking(kind: str, outputs: int) -> None:
    logits, labels = overconfident(outputs)
    scores = calibrated(logits.double(), kind, fit(logits, labels, kind))[:, :outputs]
    assert torch.equal(logits.argsort(dim=0, stable=True), scores.argsort(dim=0, stable=True))


def test_the_fit_is_finite_without_a_single_mistake() -> None:
    labels = torch.tensor([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)
    found = fit(20 * labels[:, :1] - 10, labels, "binary")
    assert 0.1 < found.temperature < 1
    assert abs(found.bias[0]) < 1e-3


def test_calibrated_scores_of_a_known_logit() -> None:
    known = Calibration(2.0, (0.5,))
    expected = [0.817574, 0.182426]  # sigmoid(2 / 2 + 0.5)
    assert calibrated(torch.tensor([[2.0]]), "binary", known)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert calibrated(torch.tensor([[2.0]]), "multilabel", known)[0].tolist() == pytest.approx(expected[:1], abs=1e-6)
    several = calibrated(torch.tensor([[2.0, 0.0, 0.0]]), "multiclass", Calibration(2.0, (0.0, 0.0, 1.0)))
    assert several[0].tolist() == pytest.approx([0.422319, 0.155362, 0.422319], abs=1e-6)
