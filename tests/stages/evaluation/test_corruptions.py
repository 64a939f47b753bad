"""Corruptions of pictures, judged by a model of colour."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import SIZE, blue, red

from stages.evaluation import corruptions
from stages.inference.decoding import pixels
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions, write_shards


def test_a_model_of_colour_fails_on_grey_pictures_alone(tmp_path: Path, predictor: Predictor) -> None:
    pictures = [red(seed) for seed in range(6)] + [blue(seed) for seed in range(6)]
    uncorrupted = predictions([0.98] * 6 + [0.02] * 6, [True] * 6 + [False] * 6)
    results = corruptions.measure(uncorrupted, predictor, write_shards(tmp_path, pictures), 6, 1)
    rates = {result.corruption: (result.recall, result.drop, result.false_positive_rate) for result in results}
    assert list(rates) == list(corruptions.CORRUPTIONS)
    assert rates["none"] == (1.0, 0.0, 0.0)
    assert rates["grey"] == (0.0, 1.0, 0.0)
    for name in ("mirrored", "half size", "crop", "jpeg 30", "text"):
        assert rates[name] == (1.0, 0.0, 0.0)
    assert corruptions.recall_drops(results)["jpeg_30"] == 0.0


def test_transparent_pictures_are_corrupted_on_the_models_background() -> None:
    clear = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    file = io.BytesIO()
    clear.save(file, "PNG")
    uncorrupted, *_ = corruptions._corrupted(SIZE, 128, file.getvalue())
    assert np.array_equal(uncorrupted, pixels(file.getvalue(), SIZE))
