"""The networks. A network is a frozen stem, whose outputs are computed once per picture, and a trainable part on them.

| model | frozen stem | trainable part |
|---|---|---|
| probe | a whole backbone, several layers pooled | `Head`: one or more heads with a hidden layer |
| finetune | a backbone without its last blocks | `FineTuned`: the last blocks and a linear layer |
| finetune with `augment` | none | `FineTuned`: the whole backbone, of which the last blocks are trained |
| mini_xception | none | `MiniXception` |

Every trainable part returns the logits of labels [n, heads, outputs] and of tags [n, heads, tags]. Several heads are an
ensemble, which only `Head` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from stages.dataset.arrays import Ids, Rows
from stages.training.backbones import Normalise, create, normalisation
from stages.training.calibration import Calibration, calibrated
from stages.training.stem import CutStem, FrozenStem, PooledStem, cut
from stages.workspace.errors import ModelError

Logits = tuple[Tensor, Tensor]
"""Of labels and of tags."""
CLAMP = 8.0
"""Largest standardised feature, in standard deviations."""


class Head(nn.Module):
    """Frozen features [n, values] -> logits. Features are standardised; each head has a hidden layer of its own."""

    def __init__(self, values: int, hidden: int, dropout: float, outputs: int, tags: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(values))
        self.register_buffer("scale", torch.ones(values))
        self.hidden = nn.Sequential(nn.Linear(values, heads * hidden), nn.ReLU(), nn.Dropout(dropout))
        # A convolution with a group per head: all heads in one operation, each connected to its own hidden units only.
        self.labels = nn.Conv1d(heads * hidden, heads * outputs, 1, groups=heads)
        self.tags = nn.Conv1d(heads * hidden, heads * tags, 1, groups=heads) if tags else None

    def standardise(self, features: Tensor) -> None:
        """Fit centre and scale to the training features [n, values]. Constant features are only centred."""
        deviation = features.std(0, correction=0)
        self.centre.copy_(features.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, features: Tensor) -> Logits:
        # Features far outside the training range are clamped, or a single one could outweigh all others.
        hidden = self.hidden(((features - self.centre) / self.scale).clamp(-CLAMP, CLAMP)).unsqueeze(2)
        labels, tags = self.labels(hidden), self.tags(hidden) if self.tags else hidden[:, :0]
        return tuple(logits.unflatten(1, (self.heads, -1)).squeeze(3) for logits in (labels, tags))


class FineTuned(nn.Module):
    """A stem's outputs, or uint8 pixels [n, size, size, 3] -> logits. The last blocks of a backbone are trained.

    Batch norms keep their pretrained statistics: those of small fine-tuning batches would be noisy.
    """

    def __init__(self, body: nn.Module, width: int, dropout: float, outputs: int, tags: int) -> None:
        """`body` returns float32 [n, width]; its parameters with `requires_grad` are trained."""
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.labels = nn.Linear(width, outputs)
        self.tags = nn.Linear(width, tags) if tags else None
        self.train()

    def train(self, mode: bool = True) -> FineTuned:
        """Set the mode of the dropout; the body stays in evaluation mode."""
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, rows: Tensor) -> Logits:
        features = self.dropout(self.body(rows)).unsqueeze(1)
        return self.labels(features), self.tags(features) if self.tags else features[..., :0]


class ExportModel(nn.Module):
    """The model as it is served: uint8 pixels [n, size, size, 3] -> probabilities of the labels, float32 [n, labels].

    Without a stem it takes what the network takes. The logits of several heads are averaged.
    """

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
    """A depthwise 3x3 convolution and a pointwise one, with a bias on the latter only, as in Keras."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1)
        )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # Keras' defaults


class Residual(nn.Module):
    """Two separable convolutions that halve height and width, and a 1x1 convolution as the shortcut."""

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
    """The 2020 project's network: uint8 pixels [n, size, size, 3] -> logits, trained from scratch.

    With one output and no tags it has 244,961 parameters, counted as Keras does, with the batch norms' statistics.
    Source: LMquentinLR/MLpy, after F. Chollet, "Xception", 2017.
    """

    def __init__(self, dropout: float, outputs: int, tags: int) -> None:
        super().__init__()
        self.normalise = Normalise((0.0,) * 3, (1.0,) * 3)
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
        features = self.body(self.normalise(pixels)).unsqueeze(1)
        return self.labels(features), self.tags(features) if self.tags else features[..., :0]


@dataclass(frozen=True)
class Architecture:
    """Everything that determines a network's layers. The checkpoint holds it, so that the network can be rebuilt."""

    name: str
    """probe, finetune or mini_xception."""
    size: int
    """Side of the square input picture, in px."""
    outputs: int
    """Logits per head: one for a binary policy, else one per label."""
    tags: int
    """Number of auxiliary targets."""
    dropout: float
    backbone: str = ""
    """timm's name; none for mini_xception."""
    weights: str = ""
    """See `backbones.create`."""
    hidden: int = 0
    heads: int = 1
    pooled_stages: int | None = None
    trained_blocks: int = 0
    augment: bool = False
    """Pictures are augmented anew in each epoch, so there is no frozen stem."""


def frozen_stem(architecture: Architecture) -> FrozenStem | None:
    """The part of the network whose outputs can be computed once per picture; None if there is no such part.

    Raises:
        ModelError: if the backbone or its weights cannot be loaded, or it does not take pictures of this size.
    """
    if not architecture.backbone:
        return None
    network = create(architecture.backbone, architecture.weights, architecture.size)
    normalise = normalisation(network, architecture.weights)
    if architecture.name == "probe":
        stem: FrozenStem = PooledStem(network, normalise, architecture.pooled_stages)
    else:
        # Of the whole backbone: the trainable part, too, must fit the size.
        check_size(nn.Sequential(normalise, network), architecture)
        parts = _cut_backbone(network, architecture)
        if parts is None:
            return None
        stem = CutStem(parts[0], normalise)
    check_size(stem, architecture)
    return stem


def _cut_backbone(network: nn.Module, architecture: Architecture) -> tuple[nn.Module, nn.Module] | None:
    """Set which blocks of a backbone are trained, and cut it before the first of them.

    Returns:
        The layers before the cut and after it; None if the backbone cannot be cut, or pictures change in each epoch.
    """
    # timm numbers the blocks from the input to the output.
    blocks = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
    last = sorted(blocks)[-architecture.trained_blocks :] if architecture.trained_blocks else []
    trained = {name for block in last for name in blocks[block]}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    return None if architecture.augment else cut(network, trained)


def trainable_part(architecture: Architecture, features: int) -> nn.Module:
    """The part of the network that is trained, with initial weights: the stem's outputs, or pixels -> logits.

    Args:
        architecture: of the whole network.
        features: number of values that a `PooledStem` returns per picture; only `probe` needs it.

    Raises:
        ModelError: if the backbone or its weights cannot be loaded.
    """
    dropout, outputs, tags = architecture.dropout, architecture.outputs, architecture.tags
    if architecture.name == "probe":
        return Head(features, architecture.hidden, dropout, outputs, tags, architecture.heads)
    if architecture.name == "mini_xception":
        return MiniXception(dropout, outputs, tags)
    network = create(architecture.backbone, architecture.weights, architecture.size)
    # timm: some networks have a layer between the last feature map and the classifier, with a width of its own.
    width = cast(int, getattr(network, "head_hidden_size", None) or network.num_features)
    parts = _cut_backbone(network, architecture)
    body = parts[1] if parts else nn.Sequential(normalisation(network, architecture.weights), network)
    return FineTuned(body, width, dropout, outputs, tags)


def standardise(network: nn.Module, rows: Rows, ids: Ids) -> None:
    """Fit a `Head`'s standardisation to the features of the training pictures; other networks have none."""
    if isinstance(network, Head):
        network.standardise(torch.from_numpy(rows.take(ids)))


def check_size(network: nn.Module, architecture: Architecture) -> None:
    """Run the network on a blank picture.

    Raises:
        ModelError: if it does not take pictures of this size.
    """
    mode = network.training
    size = architecture.size
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, size, size, 3), dtype=torch.uint8))
    except Exception as error:  # networks raise assertions, shape errors, ...
        raise ModelError(
            f"{architecture.backbone} does not take pictures of train.size={size} ({error}); set the size that "
            "it was made for"
        ) from error
    network.train(mode)  # Lightning does not change the mode of the network that it trains
