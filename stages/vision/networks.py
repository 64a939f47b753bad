"""The networks that are trained. Each gives [n, outputs] logits of the labels and [n, tags] logits of the tags."""

from __future__ import annotations

from typing import cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from stages.errors import ModelError
from stages.params import Train
from stages.vision.backbones import Normalised, Pooled, create, normalised
from stages.vision.calibration import Calibration, calibrated
from stages.vision.decoding import Rows
from stages.vision.targets import Task

Logits = tuple[Tensor, Tensor]


class Head(nn.Module):
    """Frozen features [n, values] -> logits: standardised, one hidden layer shared by labels and tags."""

    def __init__(self, values: int, hidden: int, dropout: float, outputs: int, tags: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(values))
        self.register_buffer("scale", torch.ones(values))
        self.hidden = nn.Sequential(nn.Linear(values, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.labels = nn.Linear(hidden, outputs)
        self.tags = nn.Linear(hidden, tags) if tags else None

    def standardise(self, features: Tensor) -> None:
        """Fit centre and scale to training features [n, values]; constant ones are left unscaled."""
        deviation = features.std(0, correction=0)
        self.centre.copy_(features.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, features: Tensor) -> Logits:
        # A value far outside what training saw says no more than "far": it must not drown the others.
        found = self.hidden(((features - self.centre) / self.scale).clamp(-CLAMP, CLAMP))
        return self.labels(found), self.tags(found) if self.tags else found[:, :0]


CLAMP = 8.0
"""Standard deviations."""


class Tuned(nn.Module):
    """uint8 pixels [n, size, size, 3] -> logits: a pretrained network whose last blocks are trained.

    What is frozen keeps its batch norms' statistics; so does the rest, as batches of a fine-tuning are small.
    """

    def __init__(
        self, network: nn.Module, normalise: Normalised, trained_blocks: int, dropout: float, outputs: int, tags: int
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network
        self.dropout = nn.Dropout(dropout)
        width = cast(int, getattr(network, "head_hidden_size", None) or network.num_features)
        self.labels = nn.Linear(width, outputs)
        self.tags = nn.Linear(width, tags) if tags else None
        blocks = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
        trained = (
            {name for block in sorted(blocks)[-trained_blocks:] for name in blocks[block]} if trained_blocks else ()
        )
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)

    def train(self, mode: bool = True) -> Tuned:
        """Dropout as `mode` says; the backbone stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels: Tensor) -> Logits:
        features = self.network.forward_features(self.normalise(pixels))  # type: ignore[operator]
        found = self.dropout(self.network.forward_head(features, pre_logits=True))  # type: ignore[operator]
        return self.labels(found), self.tags(found) if self.tags else found[:, :0]


class Moderator(nn.Module):
    """What is exported: uint8 pixels [n, size, size, 3] -> probabilities of the labels, float32 [n, labels]."""

    def __init__(self, front: nn.Module | None, network: nn.Module, kind: str, calibration: Calibration) -> None:
        super().__init__()
        self.front = front or nn.Identity()
        self.network = network
        self.kind = kind
        self.calibration = calibration

    def forward(self, pixels: Tensor) -> Tensor:
        logits, _tags = self.network(self.front(pixels))
        return calibrated(logits, self.kind, self.calibration)


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
        found = self.body(self.normalise(pixels))
        return self.labels(found), self.tags(found) if self.tags else found[:, :0]


def frozen(params: Train) -> Pooled | None:
    """The part of the network that is not trained, if its outputs are to be computed once: pixels -> features.

    Raises:
        ModelError: if the backbone cannot be had, or does not take pictures of this size.
    """
    if params.model != "probe":
        return None
    network = create(params.backbone, params.weights)
    pooled = Pooled(network, normalised(network, params.weights))
    check_size(pooled, params)
    return pooled


def trained(params: Train, task: Task, rows: Rows) -> nn.Module:
    """The part of the network that is trained, from rows of frozen features or pixels to logits.

    Raises:
        ModelError: as `frozen`.
    """
    network = built(params, **arguments(params, task, rows))
    if isinstance(network, Head):
        network.standardise(torch.from_numpy(rows.take(task.train.ids)))
    return network


def arguments(params: Train, task: Task, rows: Rows) -> dict[str, int]:
    """What `built` needs besides the parameters; the checkpoint keeps it."""
    return {
        "outputs": task.outputs,
        "tags": len(task.vocabulary) if params.tag_loss else 0,
        "values": rows.shape[0] if params.model == "probe" else 0,
    }


def built(params: Train, outputs: int, tags: int, values: int) -> nn.Module:
    """The same network before it has seen a picture.

    Raises:
        ModelError: as `frozen`.
    """
    if params.model == "probe":
        return Head(values, params.hidden, params.dropout, outputs, tags)
    if params.model == "mini_xception":
        return MiniXception(params.dropout, outputs, tags)
    network = create(params.backbone, params.weights)
    normalise = normalised(network, params.weights)
    tuned = Tuned(network, normalise, params.trained_blocks, params.dropout, outputs, tags)
    check_size(tuned, params)
    return tuned


def check_size(network: nn.Module, params: Train) -> None:
    """Try the network on one blank picture.

    Raises:
        ModelError: if it does not take this size.
    """
    mode = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, params.size, params.size, 3), dtype=torch.uint8))
    except Exception as error:  # assertions and shape errors of any network
        raise ModelError(
            f"{params.backbone} does not take pictures of train.size={params.size} ({error}); set the size it was "
            "made for"
        ) from error
    network.train(mode)  # Lightning trains a network in the mode that it finds
