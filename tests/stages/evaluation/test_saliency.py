"""Occlusion saliency of a model of colour."""

from __future__ import annotations

import numpy as np
from tiny import SIZE

from stages.evaluation import saliency
from stages.inference.predictor import Predictor


def test_saliency_lies_where_the_score_comes_from(predictor: Predictor) -> None:
    square = np.full((SIZE, SIZE, 3), 128, np.uint8)
    square[:8, :8] = (255, 128, 0)
    flagged = saliency.occlusion(square, predictor, 0)
    assert flagged.shape == (SIZE, SIZE)
    assert flagged[:8, :8].min() > 0
    assert abs(flagged[16:, 16:]).max() < 1e-6
    clean = saliency.occlusion(square, predictor, 1)
    assert clean[:8, :8].max() < 0
    overlay = saliency.overlay(square, flagged)
    assert overlay.dtype == np.uint8
    assert overlay[2, 2, 0] > overlay[2, 2, 2], "red speaks for the label"
    assert overlay[20, 20].tolist() == [128, 128, 128]
