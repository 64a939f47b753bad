"""Frozen stems: the part of a network before anything that is trained, whose outputs are computed once a picture."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, cast

import timm.models
import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from stages.training.backbones import Normalised


def _mean(values: Tensor) -> Tensor:
    """Average over places: [n, channels, height, width] -> [n, channels]."""
    return values.mean((2, 3))


def _moments(values: Tensor) -> Tensor:
    """Mean, standard deviation and maximum over places: [n, channels, height, width] -> [n, 3 channels]."""
    average = _mean(values)
    # Of squares, not of differences: both are plain average poolings, which the serving runtime does in no time.
    variance = _mean(values * values) - average * average
    return torch.cat([average, variance.clamp(min=0).sqrt(), values.amax((2, 3))], 1)


def _taps(network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Inner modules whose outputs are pooled, by name.

    In networks of timm's EfficientNet family: the last block of every stage but the first, and within it what its
    depthwise convolution found. In others: the modules that timm names as feature levels.
    """
    taps: dict[str, Callable[[Tensor], Tensor]] = {}
    stages = getattr(network, "blocks", None)
    if isinstance(stages, nn.Sequential) and all(isinstance(stage, nn.Sequential) for stage in stages):
        for number, stage in enumerate(stages):
            last = f"blocks.{number}.{len(cast(nn.Sequential, stage)) - 1}"
            if number and hasattr(network.get_submodule(last), "conv_dw"):
                after = "bn2" if hasattr(network.get_submodule(last), "conv_pwl") else "bn1"
                taps[f"{last}.{after}"] = _mean
            if number:
                taps[last] = _moments
    else:
        taps = {level["module"]: _moments for level in getattr(network, "feature_info", [])}
    return taps


class PooledStem(nn.Module):
    """uint8 pixels [n, size, size, 3] -> poolings of several layers of a frozen network, float32 [n, values].

    For `tf_efficientnet_lite0` these are 7,424: means of 6 depthwise activations, means, standard deviations and
    maxima of 6 blocks, the mean of the last layer.
    """

    def __init__(self, network: nn.Module, normalise: Normalised) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network
        self._taps = _taps(network)
        self._channels_last = str(getattr(network, "output_fmt", "")) == "NHWC"
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> PooledStem:
        """Stay as it is: frozen statistics are part of the features."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(pool: Callable[[Tensor], Tensor], _module: nn.Module, _inputs: Any, out: Tensor) -> None:
            if out.ndim == 3:  # a transformer's tokens: [n, tokens, channels]
                out = out.transpose(1, 2).unsqueeze(-1)
            elif self._channels_last:
                out = out.permute(0, 3, 1, 2)
            found.append(pool(out))

        handles = [
            self.network.get_submodule(name).register_forward_hook(partial(keep, pool))
            for name, pool in self._taps.items()
        ]
        try:
            last = self.network.forward_features(self.normalise(pixels))  # type: ignore[operator]
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([*found, self.network.forward_head(last, pre_logits=True)], 1)  # type: ignore[operator]


class CutStem(nn.Module):
    """uint8 pixels [n, size, size, 3] -> what a network's frozen first part makes of them, float32 [n, ...]."""

    def __init__(self, layers: nn.Module, normalise: Normalised) -> None:
        super().__init__()
        self.normalise = normalise
        self.layers = layers
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> CutStem:
        """Stay as it is: frozen statistics are part of what was computed."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.layers(self.normalise(pixels))
        return found


FrozenStem = PooledStem | CutStem
"""A frozen part of a network, from pixels on."""


def cut(network: nn.Module, trained: Collection[str]) -> tuple[nn.Module, nn.Module] | None:
    """A network as two, of which the first holds no parameter named in `trained` and the second takes what it gives.

    None where that cannot be had: the very first layer is trained, or the network's code cannot be traced.
    """
    if not trained:
        return network, nn.Identity()
    tracer = NodePathTracer(
        autowrap_functions=tuple(timm.models.get_notrace_functions()),  # type: ignore[no-untyped-call]
        leaf_modules=list(timm.models.get_notrace_modules()),  # type: ignore[no-untyped-call]
    )
    try:
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError):  # whatever code meets symbols for tensors
        return None
    nodes = list(graph.nodes)
    place = _narrow(nodes, next(at for at, node in enumerate(nodes) if _uses(node, trained)))
    if place is None:
        return None
    (between,) = _handed(nodes, place)
    front = _part(network, nodes[:place], None, between)
    return front, _part(network, nodes[place:-1], between, nodes[-1].all_input_nodes[0])


def _uses(node: fx.Node, trained: Collection[str]) -> bool:
    name = str(node.target)
    if node.op == "call_module":
        return any(each.startswith(f"{name}.") for each in trained)
    return node.op == "get_attr" and name in trained


def _handed(nodes: list[fx.Node], place: int) -> set[fx.Node]:
    """What is computed before a place and used from it on."""
    before = set(nodes[:place])
    return {
        value
        for node in nodes[place:]
        for value in node.all_input_nodes
        if value in before and value.op != "get_attr"  # a parameter, which both may hold
    }


def _narrow(nodes: list[fx.Node], latest: int) -> int | None:
    """The last place up to `latest` over which one computed value is handed, and nothing else."""
    for place in range(latest, 0, -1):
        handed = _handed(nodes, place)
        if len(handed) == 1 and next(iter(handed)).op != "placeholder":
            return place
    return None


def _part(network: nn.Module, nodes: list[fx.Node], entry: fx.Node | None, leaving: fx.Node) -> fx.GraphModule:
    """These of a network's nodes as a module: from `entry`, or the network's own input, to `leaving`."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {entry: graph.placeholder("between")} if entry else {}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        copied(node)
    graph.output(copies[leaving])
    return fx.GraphModule(network, graph)
