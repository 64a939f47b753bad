"""Samples of predictions, and the worst mistakes."""

from __future__ import annotations

from stages.evaluation.predictions import balanced_sample, worst_mistakes
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions


def test_a_balanced_sample_has_as_many_positives_and_negatives_as_asked(predictor: Predictor) -> None:
    sample = balanced_sample(predictions([0.5] * 50, [image_id < 8 for image_id in range(50)]), predictor.sidecar, 5)
    assert ((sample < 8).sum(), (sample >= 8).sum()) == (5, 5)
    assert sample.tolist() == sorted(set(sample.tolist()))


def test_mistakes_of_both_kinds_are_ranked_by_their_relative_margin(predictor: Predictor) -> None:
    threshold = predictor.sidecar.thresholds["flagged"]
    scores = [threshold * 0.9, threshold * 0.1, 1.0, threshold + 0.01, 0.0, 1.0]
    truth = [True, True, False, False, False, True]
    mistakes = worst_mistakes(predictions(scores, truth), predictor.sidecar, 4)
    assert [(mistake.row, mistake.missed) for mistake in mistakes] == [(2, False), (1, True), (0, True), (3, False)]
    assert [mistake.row for mistake in worst_mistakes(predictions(scores, truth), predictor.sidecar, 2)] == [2, 1]
    assert worst_mistakes(predictions(scores, truth), predictor.sidecar, 0) == []
