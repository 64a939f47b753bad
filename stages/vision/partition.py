"""A network cut in two: what comes before anything that is trained, which is computed once a picture, and the rest."""

from __future__ import annotations

from collections.abc import Collection

import timm.models
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from stages.vision.backbones import Normalised, Pooled


class Prefix(nn.Module):
    """uint8 pixels [n, size, size, 3] -> what a network's frozen first part makes of them, float32 [n, ...]."""

    def __init__(self, layers: nn.Module, normalise: Normalised) -> None:
        super().__init__()
        self.normalise = normalise
        self.layers = layers
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Prefix:
        """Stay as it is: frozen statistics are part of what was computed."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.layers(self.normalise(pixels))
        return found


Front = Pooled | Prefix
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
