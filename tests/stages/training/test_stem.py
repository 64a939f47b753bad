"""Frozen stems: pooled backbones, and backbones that are cut in two."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from stages.inference.runtime import session
from stages.training.backbones import create, normalisation
from stages.training.export import FEATURES, PIXELS, export
from stages.training.stem import PooledStem, cut
from stages.workspace.errors import ModelError

TINY = "test_efficientnet"  # timm's own for tests: 360 thousand parameters


def pixels(count: int = 1, size: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


@pytest.fixture(scope="module")
def pooled() -> PooledStem:
    network = create("tf_efficientnet_lite0", "pypi")
    return PooledStem(network, normalisation(network, "pypi"))


def test_lite0_is_pooled_to_7424_values(pooled: PooledStem) -> None:
    found = pooled(pixels(2))
    assert found.shape == (2, 7424)
    assert found.isfinite().all()


def test_fewer_stages_are_the_first_values(pooled: PooledStem) -> None:
    first = PooledStem(pooled.network, pooled.normalise, stages=6)(pixels(2))
    assert first.shape == (2, 4032)
    assert torch.equal(first, pooled(pixels(2))[:, :4032])


def test_a_graph_of_fewer_stages_leaves_out_the_rest(pooled: PooledStem, tmp_path: Path) -> None:
    first = PooledStem(pooled.network, pooled.normalise, stages=3)
    export(first, tmp_path / "first.onnx", (64, 64, 3), (PIXELS, FEATURES))
    network = onnx.load(tmp_path / "first.onnx")
    weights = sum(math.prod(tensor.dims) for tensor in network.graph.initializer)
    assert 0 < weights < 0.1 * sum(parameter.numel() for parameter in pooled.network.parameters())
    values = session(tmp_path / "first.onnx", 1).run(None, {PIXELS: pixels(2).numpy()})[0]
    assert np.allclose(values, first(pixels(2)), atol=1e-3)


def test_stages_without_anything_to_pool_are_refused(pooled: PooledStem) -> None:
    with pytest.raises(ModelError, match=r"pooled_stages=1: .* has nothing to pool there; raise it"):
        PooledStem(pooled.network, pooled.normalise, stages=1)


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit3"])
def test_a_transformer_is_resized_for_the_pictures_and_exported(backbone: str, tmp_path: Path) -> None:
    network = create(backbone, "none", 64)
    stem = PooledStem(network, normalisation(network, "none"))
    export(stem, tmp_path / "stem.onnx", (64, 64, 3), (PIXELS, FEATURES))
    values = session(tmp_path / "stem.onnx", 1).run(None, {PIXELS: pixels(3).numpy()})[0]
    assert np.allclose(values, stem(pixels(3)), atol=1e-3)


def test_a_frozen_stem_cannot_be_put_in_training_mode(pooled: PooledStem) -> None:
    assert not any(module.training for module in pooled.train().modules())
    assert not any(parameter.requires_grad for parameter in pooled.parameters())


def test_a_pictures_features_do_not_depend_on_its_batch(pooled: PooledStem) -> None:
    batch = pixels(3)
    assert torch.allclose(pooled(batch)[1:2], pooled(batch[1:2]), atol=1e-4)


@pytest.mark.parametrize("backbone", [TINY, "test_resnet", "test_convnext"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_two_parts_of_a_network_compute_the_same_as_the_whole(backbone: str, count: int) -> None:
    network = create(backbone, "none").eval()
    blocks = [name for name, _ in network.named_parameters()]
    halves = cut(network, blocks[-count:] if count else ())
    assert halves
    values = normalisation(network, "none")(pixels(2))
    with torch.no_grad():
        assert torch.equal(halves[1](halves[0](values)), network(values))
    assert not {name for name, _ in halves[0].named_parameters()} & set(blocks[-count:] if count else ())


def test_a_network_whose_first_layer_is_trained_is_not_cut() -> None:
    network = create(TINY, "none")
    assert cut(network, [name for name, _ in network.named_parameters()]) is None


class Branching(nn.Module):
    """Its operations depend on the input's values, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, values: Tensor) -> Tensor:
        return self.conv(values) if values.sum() > 0 else values


def test_a_network_that_cannot_be_traced_is_not_cut() -> None:
    assert cut(Branching(), ["conv.bias"]) is None
