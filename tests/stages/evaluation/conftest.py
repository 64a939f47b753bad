"""A predictor whose score is known."""

from __future__ import annotations

import pytest
from tiny import redness

from stages.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Scores a picture by how red it is."""
    return Predictor(redness(tmp_path_factory.mktemp("model") / "moderator.onnx"))
