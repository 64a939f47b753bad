"""A small frozen stem."""

from __future__ import annotations

import pytest
import torch

from stages.training.backbones import create, normalisation
from stages.training.stem import PooledStem


@pytest.fixture(scope="package")
def pooled() -> PooledStem:
    """Of timm's smallest EfficientNet, with random weights."""
    torch.manual_seed(0)
    network = create("test_efficientnet", "none")
    return PooledStem(network, normalisation(network, "none"))
