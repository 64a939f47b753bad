"""Likely label errors."""

from __future__ import annotations

from stages.evaluation import label_issues
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions


def test_a_label_that_the_model_contradicts_with_high_confidence_is_an_issue(predictor: Predictor) -> None:
    scores = [0.95, 0.9, 0.9, 0.02, 0.05, 0.1, 0.1, 0.97]
    split = predictions(scores, [True] * 4 + [False] * 4)
    issues = label_issues.find(split, predictor.sidecar)
    assert [(issue.row, issue.given) for issue in issues] == [(3, True), (7, False)]
    (first, second) = label_issues.rows(issues, split)
    assert first[:4] == [3, "flagged", "flagged", "not flagged"]
    assert second[:4] == [7, "flagged", "not flagged", "flagged"]
