"""Frozen stems: the first part of a network, which is not trained, so its outputs are computed once per picture.

A `PooledStem` is a whole backbone whose inner layers are pooled to a feature vector. A `CutStem` is the first part of a
backbone that `cut` divides in two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, cast

import timm.models
import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from stages.training.backbones import Normalise
from stages.workspace.errors import ModelError


def _mean(values: Tensor) -> Tensor:
    """Mean over positions: [n, channels, height, width] -> [n, channels]."""
    return values.mean((2, 3))


def _moments(values: Tensor) -> Tensor:
    """Mean, standard deviation and maximum over positions: [n, channels, height, width] -> [n, 3 * channels]."""
    average = _mean(values)
    # E[x^2] - E[x]^2 is two average poolings, which ONNX Runtime is fast at. Rounding may make it slightly negative.
    variance = _mean(values * values) - average * average
    return torch.cat([average, variance.clamp(min=0).sqrt(), values.amax((2, 3))], 1)


def _taps(network: nn.Module, stages: int | None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name of an inner module -> the pooling of its outputs.

    Of timm's EfficientNets: the last block of each stage but the first, and the normalised output of the depthwise
    convolution within it. Of other networks: the modules that timm lists in `feature_info`. Of the first so many stages
    or modules only, unless it is None.
    """
    taps: dict[str, Callable[[Tensor], Tensor]] = {}
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, nn.Sequential) and all(isinstance(stage, nn.Sequential) for stage in blocks):
        for number, stage in enumerate(list(blocks)[:stages]):
            last = f"blocks.{number}.{len(cast(nn.Sequential, stage)) - 1}"
            if number and hasattr(network.get_submodule(last), "conv_dw"):
                after = "bn2" if hasattr(network.get_submodule(last), "conv_pwl") else "bn1"
                taps[f"{last}.{after}"] = _mean
            if number:
                taps[last] = _moments
    else:
        taps = {level["module"]: _moments for level in getattr(network, "feature_info", [])[:stages]}
    return taps


class PooledStem(nn.Module):
    """uint8 pixels [n, size, size, 3] -> pooled outputs of several layers of a frozen network, float32 [n, values].

    The last layer, trained to tell objects apart, discards textures and strokes that inner layers still have. Of
    `tf_efficientnet_lite0` there are 7,424 values: means of 6 depthwise convolutions; means, standard deviations and
    maxima of 6 blocks; means of the last layer. Of its first 6 stages alone there are 4,032.
    """

    def __init__(self, network: nn.Module, normalise: Normalise, stages: int | None = None) -> None:
        """Pool the outputs of the first so many stages; None: of all, and of the last layer.

        Raises:
            ModelError: if the network has no such stages.
        """
        super().__init__()
        self.normalise = normalise
        self.network = network
        self._stages = stages
        self._taps = _taps(network, stages)
        if stages is not None and not self._taps:
            raise ModelError(
                f"train.model.pooled_stages={stages}: {type(network).__name__} has nothing to pool there; raise it, or "
                "set it to null"
            )
        self._channels_last = str(getattr(network, "output_fmt", "")) == "NHWC"
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> PooledStem:
        """Ignore the mode: the batch norms' frozen statistics are part of the features."""
        return super().train(False)

    def extra_repr(self) -> str:
        """What is pooled: the modules' own text does not show it."""
        return f"pooled={', '.join(self._taps)}, stages={self._stages}"

    def forward(self, pixels: Tensor) -> Tensor:
        pooled: list[Tensor] = []

        def keep(pool: Callable[[Tensor], Tensor], _module: nn.Module, _inputs: Any, out: Tensor) -> None:
            if out.ndim == 3:  # a transformer's tokens: [n, tokens, channels]
                out = out.transpose(1, 2).unsqueeze(-1)
            elif self._channels_last:
                out = out.permute(0, 3, 1, 2)
            pooled.append(pool(out))

        handles = [
            self.network.get_submodule(name).register_forward_hook(partial(keep, pool))
            for name, pool in self._taps.items()
        ]
        try:
            last = self.network.forward_features(self.normalise(pixels))  # type: ignore[operator]
        finally:
            for handle in handles:
                handle.remove()
        if self._stages is None:
            pooled.append(self.network.forward_head(last, pre_logits=True))  # type: ignore[operator]
        return torch.cat(pooled, 1)


class CutStem(nn.Module):
    """uint8 pixels [n, size, size, 3] -> outputs of a network's frozen first layers, float32 [n, ...]."""

    def __init__(self, layers: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.layers = layers
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> CutStem:
        """Ignore the mode: the batch norms' frozen statistics are part of the cached outputs."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.layers(self.normalise(pixels)))


FrozenStem = PooledStem | CutStem


def cut(network: nn.Module, trained: Collection[str]) -> tuple[nn.Module, nn.Module] | None:
    """Cut a network in two, as late as possible before the first layer that is trained.

    1. torch.fx traces the network's `forward` into a graph: a list of operations in the order of their execution.
    2. Find the first operation that uses a trained parameter.
    3. From there, go back to the last place where only one value passes from the operations before it to those after
       it. (Within a residual block two values pass: the block's input and the convolution's output.)
    4. The operations before and after that place become a module each.

    Args:
        network: float32 [n, 3, size, size] -> float32 [n, values].
        trained: names of the parameters that are trained.

    Returns:
        The two modules: the first one has no trained parameter, and the second one takes its output. None if the very
        first layer is trained, or if the network cannot be traced.
    """
    if not trained:
        return network, nn.Identity()
    # timm's list of functions and modules whose code torch.fx cannot look into: they become one operation each.
    tracer = NodePathTracer(
        autowrap_functions=tuple(timm.models.get_notrace_functions()),  # type: ignore[no-untyped-call]
        leaf_modules=list(timm.models.get_notrace_modules()),  # type: ignore[no-untyped-call]
    )
    try:
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError):  # code that depends on a tensor's values
        return None
    nodes = list(graph.nodes)
    place = _last_cut(nodes, next(at for at, node in enumerate(nodes) if _uses(node, trained)))
    if place is None:
        return None
    (passing,) = _passing(nodes, place)
    before = _part(network, nodes[:place], None, passing)
    return before, _part(network, nodes[place:-1], passing, nodes[-1].all_input_nodes[0])


def _uses(node: fx.Node, trained: Collection[str]) -> bool:
    """Whether an operation uses a trained parameter: through its module, or directly."""
    target = str(node.target)
    if node.op == "call_module":
        return any(name.startswith(f"{target}.") for name in trained)
    return node.op == "get_attr" and target in trained


def _passing(nodes: list[fx.Node], place: int) -> set[fx.Node]:
    """The values that operations before a place compute and operations from it on use."""
    before = set(nodes[:place])
    return {
        value
        for node in nodes[place:]
        for value in node.all_input_nodes
        if value in before and value.op != "get_attr"  # parameters are available to both parts
    }


def _last_cut(nodes: list[fx.Node], latest: int) -> int | None:
    """The last place, up to `latest`, where a single computed value passes; None if there is none."""
    for place in range(latest, 0, -1):
        passing = _passing(nodes, place)
        if len(passing) == 1 and next(iter(passing)).op != "placeholder":  # a placeholder is the network's own input
            return place
    return None


def _part(network: nn.Module, nodes: list[fx.Node], entry: fx.Node | None, output: fx.Node) -> fx.GraphModule:
    """A module of some of a network's operations, with the network's own layers.

    Args:
        network: that the operations are of.
        nodes: the operations.
        entry: the value that the module takes instead of computing it; None: the network's input.
        output: the value that it returns.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {entry: graph.placeholder("between")} if entry else {}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)  # copies the node's inputs first
        return copies[node]

    for node in nodes:
        copy(node)
    graph.output(copies[output])
    return fx.GraphModule(network, graph)
