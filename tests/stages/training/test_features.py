"""Features: computed by ONNX Runtime, and cached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.dataset.arrays import Rows
from stages.training.backbones import Normalise
from stages.training.features import extracted
from stages.training.stem import PooledStem


def pixels(count: int = 1, size: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


class Plain(nn.Module):
    """The smallest network with timm's interface."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)

    def forward_features(self, values: Tensor) -> Tensor:
        return self.conv(values)

    def forward_head(self, values: Tensor, pre_logits: bool) -> Tensor:
        return values.mean((2, 3))


def test_another_normalisation_has_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "pixels.npy", pixels(2, 32).numpy())
    rows = Rows((tmp_path / "pixels.npy",), ("one",), (np.array([1, 2]),))
    network = Plain()
    for mean, std in ((0.5, 0.5), (0.4, 0.6)):
        pool = PooledStem(network, Normalise((mean,) * 3, (std,) * 3))
        found = extracted(rows, pool, 1).take(np.array([2, 1]))
        assert found == pytest.approx(pool(pixels(2, 32).flip(0)).numpy(), abs=1e-3)
