"""The networks that are trained. Each gives logits of labels [n, heads, outputs] and of tags [n, heads, tags].

Several heads are an ensemble: each is a network of its own on the same features. Only `Head` has several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from stages.training.backbones import Normalised, create, normalised
from stages.training.calibration import Calibration, calibrated
from stages.training.stem import CutStem, FrozenStem, PooledStem, cut
from stages.workspace.errors import ModelError

Logits = tuple[Tensor, Tensor]


class Head(nn.Module):
    """Frozen features [n, values] -> logits: standardised, in each head one hidden layer, for labels and tags."""

    def __init__(self, values: int, hidden: int, dropout: float, outputs: int, tags: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(values))
        self.register_buffer("scale", torch.ones(values))
        self.hidden = nn.Sequential(nn.Linear(values, heads * hidden), nn.ReLU(), nn.Dropout(dropout))
        # Grouped: each head's outputs come from its own hidden units.
        self.labels = nn.Conv1d(heads * hidden, heads * outputs, 1, groups=heads)
        self.tags = nn.Conv1d(heads * hidden, heads * tags, 1, groups=heads) if tags else None

    def standardise(self, features: Tensor) -> None:
        """Fit centre and scale to training features [n, values]; constant ones are left unscaled."""
        deviation = features.std(0, correction=0)
        self.centre.copy_(features.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, features: Tensor) -> Logits:
        # A value far outside what training saw says no more than "far": it must not drown the others.
        found = self.hidden(((features - self.centre) / self.scale).clamp(-CLAMP, CLAMP)).unsqueeze(2)
        labels, tags = self.labels(found), self.tags(found) if self.tags else found[:, :0]
        return tuple(each.unflatten(1, (self.heads, -1)).squeeze(3) for each in (labels, tags))


CLAMP = 8.0
"""Standard deviations."""


class FineTuned(nn.Module):
    """What the frozen layers before it give, or uint8 pixels -> logits: a network's last blocks, which are trained.

    Its batch norms keep the statistics that they came with, as batches of a fine-tuning are small.
    """

    def __init__(self, body: nn.Module, width: int, dropout: float, outputs: int, tags: int) -> None:
        """`body` gives float32 [n, width]; which of its parameters are trained is its own affair."""
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.labels = nn.Linear(width, outputs)
        self.tags = nn.Linear(width, tags) if tags else None
        self.train()

    def train(self, mode: bool = True) -> FineTuned:
        """Dropout as `mode` says; the body stays in evaluation mode."""
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, rows: Tensor) -> Logits:
        found = self.dropout(self.body(rows)).unsqueeze(1)
        return self.labels(found), self.tags(found) if self.tags else found[..., :0]


class ExportModel(nn.Module):
    """What is exported: uint8 pixels [n, size, size, 3] -> probabilities of the labels, float32 [n, labels]."""

    def __init__(self, stem: nn.Module | None, network: nn.Module, kind: str, calibration: Calibration) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.network = network
        self.kind = kind
        self.calibration = calibration

    def forward(self, pixels: Tensor) -> Tensor:
        logits, _tags = self.network(self.stem(pixels))
        return calibrated(logits.mean(1), self.kind, self.calibration)


class Separable(nn.Sequential):
    """A 3x3 convolution of each channel, then one across channels; a bias on the latter only, as in Keras."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1)
        )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # Keras' defaults


class Residual(nn.Module):
    """Two separable convolutions and a halving of both sides, with a 1x1 convolution as the way around."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(inputs, outputs, 1, stride=2)
        self.through = nn.Sequential(
            nn.ReLU(),
            Separable(inputs, outputs),
            _norm(outputs),
            nn.ReLU(),
            Separable(outputs, outputs),
            _norm(outputs),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.through(x) + self.around(x))


class MiniXception(nn.Module):
    """The 2020 project's network, uint8 pixels [n, size, size, 3] -> logits, trained from scratch.

    With one output and no tags it has 244,961 parameters, counted as Keras does: batch norms' statistics included.
    Source: LMquentinLR/MLpy, after F. Chollet, "Xception", 2017.
    """

    def __init__(self, dropout: float, outputs: int, tags: int) -> None:
        super().__init__()
        self.normalise = Normalised((0.0,) * 3, (1.0,) * 3)
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, stride=2, padding=1), _norm(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), _norm(64), nn.ReLU()),
            *(Residual(inputs, outputs) for inputs, outputs in ((64, 32), (32, 64), (64, 128), (128, 256))),
            *(Separable(256, 128), _norm(128), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)),
        )
        self.labels = nn.Linear(128, outputs)
        self.tags = nn.Linear(128, tags) if tags else None

    def forward(self, pixels: Tensor) -> Logits:
        found = self.body(self.normalise(pixels)).unsqueeze(1)
        return self.labels(found), self.tags(found) if self.tags else found[..., :0]


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network's layers. The checkpoint keeps it, so that the network can be built again."""

    name: str
    """probe, finetune or mini_xception."""
    size: int
    """Side of the square picture, in px."""
    outputs: int
    """Logits: one for a binary policy, else one a label."""
    tags: int
    """Auxiliary targets."""
    dropout: float
    backbone: str = ""
    """timm's name."""
    weights: str = ""
    hidden: int = 0
    heads: int = 1
    trained_blocks: int = 0
    augment: bool = False
    """Pictures change in each epoch, so that nothing can be computed once a picture."""


def frozen_stem(architecture: Architecture) -> FrozenStem | None:
    """The part of the network that is not trained, if its outputs can be computed once: pixels -> its outputs.

    Raises:
        ModelError: if the backbone cannot be had, or does not take pictures of this size.
    """
    if not architecture.backbone:
        return None
    network = create(architecture.backbone, architecture.weights)
    normalise = normalised(network, architecture.weights)
    if architecture.name == "probe":
        stem: FrozenStem = PooledStem(network, normalise)
    else:
        check_size(nn.Sequential(normalise, network), architecture)  # of the whole: the rest does not see pixels
        halves = _halves(network, architecture)
        if halves is None:
            return None
        stem = CutStem(halves[0], normalise)
    check_size(stem, architecture)
    return stem


def _halves(network: nn.Module, architecture: Architecture) -> tuple[nn.Module, nn.Module] | None:
    """The frozen stem of a backbone and what follows; None if pictures are augmented anew in each epoch.

    From here on only the last blocks have gradients.
    """
    blocks = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
    last = sorted(blocks)[-architecture.trained_blocks :] if architecture.trained_blocks else []
    trained = {name for block in last for name in blocks[block]}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    return None if architecture.augment else cut(network, trained)


def trainable_part(architecture: Architecture, features: int) -> nn.Module:
    """The part of the network that is trained, with its initial weights: from the stem's outputs, or pixels, to logits.

    Args:
        architecture: of the whole network.
        features: values that a `PooledStem` gives a picture; of no meaning to others.

    Raises:
        ModelError: if the backbone cannot be had.
    """
    shape = architecture
    if shape.name == "probe":
        return Head(features, shape.hidden, shape.dropout, shape.outputs, shape.tags, shape.heads)
    if shape.name == "mini_xception":
        return MiniXception(shape.dropout, shape.outputs, shape.tags)
    network = create(shape.backbone, shape.weights)
    width = cast(int, getattr(network, "head_hidden_size", None) or network.num_features)
    halves = _halves(network, shape)
    body = halves[1] if halves else nn.Sequential(normalised(network, shape.weights), network)
    return FineTuned(body, width, shape.dropout, shape.outputs, shape.tags)


def check_size(network: nn.Module, architecture: Architecture) -> None:
    """Try the network on one blank picture.

    Raises:
        ModelError: if it does not take this size.
    """
    mode = network.training
    size = architecture.size
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, size, size, 3), dtype=torch.uint8))
    except Exception as error:  # assertions and shape errors of any network
        raise ModelError(
            f"{architecture.backbone} does not take pictures of train.size={size} ({error}); set the size that it was "
            "made for"
        ) from error
    network.train(mode)  # Lightning trains a network in the mode that it finds
